"""Measures the demo model through the built program, over scenes that training never saw.

usage: python3 tests/demo_eval [--build build] [--model deploy/demo-model/weights] [--short] [--tasks a,b] [--scenes N] ...

Every figure comes with a 95% interval (Wilson for shares, bootstrap over scenes for means) and with what an
answer without skill gets: another scene's picture or map, an empty scene, the most usual answer. Needs numpy
and Pillow. Exit 1 when a figure at 128x128 is worse than its floor below: when its whole interval is.
"""
import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tasks                # noqa: E402
from program import Program  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ALL = ("codec", "draw", "segmentation", "depth", "normals", "from_map", "questions", "second_turns")
SHORT_SCENES = {"draw": 8, "segmentation": 6, "questions": 3}
# What the shipped weights reached in their evaluation, less a little: a change of the program, not of luck, breaks them.
FLOORS = {"objects right (all stated of colour, shape, size)": 0.88, "mean IoU of the object classes": 0.90, "questions: all": 0.85}


def show(task, size, lines, seconds, out):
    for one in lines:
        print(f"{task} {size[0]}x{size[1]}: {tasks.text_of(one)}", flush=True)
    print(f"{task} {size[0]}x{size[1]}: {seconds:.0f} s", file=sys.stderr, flush=True)
    out.append({"task": task, "size": list(size), "seconds": seconds, "figures": lines})


def save_sheet(pictures, path):
    import numpy as np
    from PIL import Image
    across = 10
    rows = [np.concatenate(pictures[i:i + across], 1) for i in range(0, len(pictures) // across * across, across)]
    if rows:
        Image.fromarray(np.concatenate(rows)).save(path)


def measure(a, backend):
    out = []
    for size in (tuple(map(int, s.split("x"))) for s in a.sizes.split(",")):
        for task in a.tasks.split(","):
            started = time.monotonic()
            got = getattr(tasks, task)(backend, a.scenes or (SHORT_SCENES[task] if a.short else 100), size, **({"count": a.count} if task == "draw" and a.count else {}))
            lines, pictures = got if isinstance(got, tuple) else (got, None)
            show(task, size, lines, time.monotonic() - started, out)
            if a.sheets and pictures:
                save_sheet(pictures, os.path.join(a.sheets, f"{task}-{size[0]}x{size[1]}.png"))
    return out


def broken_floors(measured):
    """Figures whose interval lies under their floor. Shares and IoU alone: more is better."""
    found = []
    for one in (f for m in measured if m["size"] == [128, 128] for f in m["figures"]):
        if one["name"] in FLOORS and one["high"] < FLOORS[one["name"]]:
            found.append(f"{one['name']} is {one['value']:.3f} (at most {one['high']:.3f}), its floor is {FLOORS[one['name']]}")
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--build", default=os.path.join(ROOT, "build"))
    ap.add_argument("--model", default=os.path.join(ROOT, "deploy", "demo-model", "weights"))
    ap.add_argument("--tasks", help="of " + ",".join(ALL))
    ap.add_argument("--sizes", default="128x128", help="WxH,WxH,...")
    ap.add_argument("--scenes", type=int, help="a task (questions: a kind) [100; with --short 3 to 8]")
    ap.add_argument("--count", type=int, help="text to image: objects a scene [1 to 3]")
    ap.add_argument("--guidance", type=float, help="[mgpt.json's]")
    ap.add_argument("--top-k", type=int, help="in pictures [mgpt.json's]")
    ap.add_argument("--compute", default="bf16", help="f32 or bf16")
    ap.add_argument("--at-once", type=int, default=2, help="programs side by side")
    ap.add_argument("--daemon", action="store_true", help="text to image over HTTP from one mgptd")
    ap.add_argument("--short", action="store_true", help="a few scenes of " + ",".join(SHORT_SCENES) + ": part of ./run test")
    ap.add_argument("--sheets", help="folder for contact sheets of the answers")
    ap.add_argument("--json", help="file for all figures")
    a = ap.parse_args()
    a.tasks = a.tasks or ",".join(SHORT_SCENES if a.short else ALL)
    backend = Program(a.build, a.model, a.guidance, a.top_k, a.compute, a.at_once, a.daemon)
    try:
        out = measure(a, backend)
    finally:
        backend.close()
    if a.json:
        with open(a.json, "w") as f:
            json.dump(out, f, indent=1)
    broken = broken_floors(out)
    for text in broken:
        print(f"below its floor: {text}", flush=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
