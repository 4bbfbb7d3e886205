# What links stages between CUDA devices: libnccl, its stand-in of tests/simgpu, or worker/communicator_absent.c. Chooses
# among the sources of the library mgpt_worker; after cuda.cmake.

set(nccl absent)
if(MGPT_SIMGPU)
  set(nccl simulated)
elseif(nvcc)
  find_path(MGPT_NCCL_INCLUDE nccl.h HINTS ${toolkit}/include)
  find_library(MGPT_NCCL_LIBRARY NAMES libnccl.so.2 nccl HINTS ${toolkit}/lib64 ${toolkit}/lib)
  if(MGPT_NCCL_INCLUDE AND MGPT_NCCL_LIBRARY)
    set(nccl found)
  endif()
endif()
message(STATUS "NCCL: ${nccl}")

get_target_property(sources mgpt_worker SOURCES)
if(nccl STREQUAL "absent")
  list(FILTER sources EXCLUDE REGEX "/worker/(communicator|nccl_library)\\.c$")
else()
  list(FILTER sources EXCLUDE REGEX "/worker/communicator_absent\\.c$")
endif()
if(nccl STREQUAL "simulated")
  list(FILTER sources EXCLUDE REGEX "/worker/nccl_library\\.c$")
elseif(nccl STREQUAL "found")
  # The library itself is loaded when a worker of a device asks for it (nccl_library.c).
  get_filename_component(folder ${MGPT_NCCL_LIBRARY} DIRECTORY)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/worker/communicator.c ${CMAKE_SOURCE_DIR}/worker/nccl_library.c PROPERTIES
    COMPILE_OPTIONS "-isystem;${MGPT_NCCL_INCLUDE};-isystem;${toolkit}/include" COMPILE_DEFINITIONS "MGPT_NCCL_FOLDER=\"${folder}\"")
endif()
set_target_properties(mgpt_worker PROPERTIES SOURCES "${sources}")
