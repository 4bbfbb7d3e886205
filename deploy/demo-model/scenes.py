"""Scenes of the demo model: one to three solids on a floor before a wall, drawn exactly and at any size.

In:  a seed and a size (multiples of 32).  Out: a Scene, and its pictures: rgb, segmentation, depth, normals.
Needs numpy alone; tests/demo_eval imports it too. Text about a scene is in scene_text.py.

The camera is orthographic and looks down by 25 degrees, so moving an object moves its picture and changes
nothing else. Every object therefore is ray-cast once, into a sprite of 32x32 pixels, and stands in a block of
2x2 cells of the codec's 16-pixel lattice; no two objects share a column of cells. An f16 codec then meets
some eight hundred different patches in all pictures of all kinds, few enough for a code each.
"""
from dataclasses import dataclass
from functools import lru_cache
import numpy as np

SHAPES = ("sphere", "cube", "cylinder", "cone")
SIZES = ("small", "large")
COLOURS = {"red": (214, 40, 40), "orange": (240, 130, 30), "yellow": (240, 215, 50), "green": (40, 160, 70),
           "cyan": (60, 205, 215), "blue": (45, 80, 210), "purple": (140, 60, 180), "white": (238, 238, 232)}
CLASSES = ("wall", "floor") + SHAPES
PALETTE = np.array([(40, 40, 60), (120, 120, 120), (230, 60, 60), (60, 110, 230), (70, 200, 90), (240, 200, 60)], np.uint8)
WALL, FLOOR = np.array((178, 192, 206.0)), np.array((140, 128, 116.0))

CELL, BOX = 16, 32
BASE_X, BASE_Y = 14.5, 25.5          # where the middle of an object's base lies in its box
PITCH = np.deg2rad(25)
COT, TAN = 1 / np.tan(PITCH), np.tan(PITCH)
SCREEN_DOWN = np.array((0, -np.cos(PITCH), np.sin(PITCH)))      # world: x right, y up, z towards the viewer
VIEW = np.array((0, -np.sin(PITCH), -np.cos(PITCH)))
HORIZON_DEPTH, DEPTH_SPAN = 400.0, 320.0    # pixels: depth at the foot of the wall; what 255 grey levels cover


@dataclass(frozen=True)
class Thing:
    """One object; col and row are the upper left cell of its block of 2x2."""
    shape: str
    colour: str
    size: str
    col: int
    row: int


@dataclass(frozen=True)
class Scene:
    width: int
    height: int
    things: tuple

    @property
    def horizon(self):
        """The row of cells where the floor begins."""
        return horizon_row(self.height)


def horizon_row(height):
    return max(1, height // CELL * 3 // 8)


def sample_scene(seed, width, height, count=None):
    """The scene of a seed at a size: places, kinds and colours drawn evenly; objects lie two columns apart or more."""
    rng = np.random.default_rng([seed, width, height])
    cols, rows = width // CELL, height // CELL
    count = min(count or int(rng.choice((1, 2, 3), p=(.2, .4, .4))), cols // 2)
    # Choosing gaps instead of columns makes every legal set of columns equally likely.
    free = np.sort(rng.choice(cols - count, count, replace=False)) + np.arange(count)
    order = rng.permutation(count)
    things = []
    for col in free[order]:
        row = int(rng.integers(horizon_row(height) - 1, rows - 1))
        things.append(Thing(str(rng.choice(SHAPES)), str(rng.choice(tuple(COLOURS))), str(rng.choice(SIZES)), int(col), row))
    return Scene(width, height, tuple(things))


# Ray casting, once for each shape and size -----------------------------------------------------------------

def _hit_sphere(o, d, k):
    r = 12.6 * k
    c = np.array((0, r, 0))
    b = ((o - c) * d).sum(-1)
    disc = b * b - (((o - c) ** 2).sum(-1) - r * r)
    t = np.where(disc > 0, -b - np.sqrt(np.maximum(disc, 0)), np.inf)
    return t, (o + np.where(np.isfinite(t), t, 0)[..., None] * d - c) / r


def _hit_cube(o, d, k):
    half, a = 9.3 * k, 0.5
    turn = np.array(((np.cos(a), 0, -np.sin(a)), (0, 1, 0), (np.sin(a), 0, np.cos(a))))
    o2, d2 = (o - (0, half, 0)) @ turn.T, d @ turn.T
    d2 = np.where(np.abs(d2) < 1e-9, 1e-9, d2)
    near, far = (-half * np.sign(d2) - o2) / d2, (half * np.sign(d2) - o2) / d2
    t, axis = near.max(-1), near.argmax(-1)
    n = -np.take_along_axis(np.sign(d2), axis[..., None], -1) * np.eye(3)[axis]
    return np.where(t < far.min(-1), t, np.inf), n @ turn


def _nearest(candidates):
    """The first hit among (t, normal) pairs."""
    t = np.stack([c[0] for c in candidates])
    n = np.stack([np.broadcast_to(c[1], t.shape[1:] + (3,)) for c in candidates])
    best = t.argmin(0)
    return t.min(0), np.take_along_axis(n, best[None, ..., None], 0)[0]


def _disc(o, d, y, r, normal):
    t = (y - o[..., 1]) / d[..., 1]
    p = o + t[..., None] * d
    return np.where(p[..., 0] ** 2 + p[..., 2] ** 2 <= r * r, t, np.inf), np.array(normal, float)


def _roots(a, b, c):
    """Roots of a t^2 + 2 b t + c, smaller first; inf where there is none."""
    disc = b * b - a * c
    s = np.sqrt(np.maximum(disc, 0))
    t = np.sort(np.stack(((-b - s) / a, (-b + s) / a)), 0)
    return np.where(disc > 0, t, np.inf)


def _hit_cylinder(o, d, k):
    r, h = 10.4 * k, 19.5 * k
    flat = np.array((1, 0, 1.0))
    t = _roots((d * d * flat).sum(-1), (o * d * flat).sum(-1), (o * o * flat).sum(-1) - r * r)[0]
    p = o + np.where(np.isfinite(t), t, 0)[..., None] * d
    side = np.where((p[..., 1] >= 0) & (p[..., 1] <= h), t, np.inf)
    return _nearest([(side, p * flat / r), _disc(o, d, h, r, (0, 1, 0))])


def _hit_cone(o, d, k):
    r, h = 11.6 * k, 25.0 * k
    s2, q = (r / h) ** 2, np.array((0, h, 0))
    w = np.array((1, -s2, 1))
    ts = _roots((d * d * w).sum(-1), ((o - q) * d * w).sum(-1), ((o - q) ** 2 * w).sum(-1))
    out = []
    for t in ts:
        p = o + np.where(np.isfinite(t), t, 0)[..., None] * d
        n = (p - q) * w
        n = n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-9)
        out.append((np.where((p[..., 1] >= 0) & (p[..., 1] <= h), t, np.inf), n))
    return _nearest(out)


_HIT = {"sphere": _hit_sphere, "cube": _hit_cube, "cylinder": _hit_cylinder, "cone": _hit_cone}
_SCALE = {"small": 0.62, "large": 1.0}
SHADING_SAMPLES = 6                   # rays a pixel and axis for colours and edges


def _screen_rays(samples):
    """Origins on the camera plane through the base's middle; one ray for each sample of each pixel."""
    at = (np.arange(BOX * samples) + 0.5) / samples
    u, v = np.meshgrid(at - BASE_X, at - BASE_Y)
    return u[..., None] * np.array((1.0, 0, 0)) + v[..., None] * SCREEN_DOWN


def _average(x, samples):
    return x.reshape(BOX, samples, BOX, samples, *x.shape[2:]).mean((1, 3))


def _shadow(shape, k, samples):
    """How much light reaches each pixel's floor point: a nearly overhead lamp of some width, from the left."""
    o = _screen_rays(samples)
    floor = o - (o[..., 1] / VIEW[1])[..., None] * VIEW
    lit = np.zeros(floor.shape[:2])
    lamps = [(-0.24 + a, 1, 0.10 + b) for a in (-.05, .05) for b in (-.05, .05)]
    for lamp in lamps:
        d = np.array(lamp) / np.linalg.norm(lamp)
        t, _ = _HIT[shape](floor + 1e-3 * d, np.broadcast_to(d, floor.shape), k)
        lit += ~(np.isfinite(t) & (t > -1e-6)) / len(lamps)
    return _average(0.55 + 0.45 * lit, samples)


@lru_cache(maxsize=None)
def sprite(shape, size):
    """What an object looks like in its box: shade, gloss and coverage (rgb), shadow, depth, normal, mask."""
    k, s = _SCALE[size], SHADING_SAMPLES
    o = _screen_rays(s)
    t, n = _HIT[shape](o, np.broadcast_to(VIEW, o.shape), k)
    hit = np.isfinite(t)
    key, fill = np.array((-.45, .75, .50)), np.array((.6, .2, .77))
    key, fill = key / np.linalg.norm(key), fill / np.linalg.norm(fill)
    light = 0.30 + 0.62 * np.maximum(n @ key, 0) + 0.16 * np.maximum(n @ fill, 0)
    half = (key - VIEW) / np.linalg.norm(key - VIEW)
    gloss = 0.45 * np.maximum(n @ half, 0) ** 40
    centre = _screen_rays(1)
    depth, normal = _HIT[shape](centre, np.broadcast_to(VIEW, centre.shape), k)
    return {"light": _average(light * hit, s), "gloss": _average(gloss * hit, s), "alpha": _average(hit * 1.0, s),
            "shadow": _shadow(shape, k, 3), "mask": np.isfinite(depth), "depth": np.where(np.isfinite(depth), depth, 0),
            "normal": normal}


# Pictures ---------------------------------------------------------------------------------------------------

def _box(thing):
    return (slice(thing.row * CELL, thing.row * CELL + BOX), slice(thing.col * CELL, thing.col * CELL + BOX))


def background_rgb(width, height):
    out = np.empty((height, width, 3))
    out[:], out[horizon_row(height) * CELL:] = WALL, FLOOR
    return out


def paint(thing, under):
    """The thing's box over what lies under it, [32, 32, 3] in 0..255; `under` above the horizon keeps its light."""
    s = sprite(thing.shape, thing.size)
    obj = np.minimum(s["light"][..., None] * COLOURS[thing.colour] + 255 * s["gloss"][..., None], 255 * s["alpha"][..., None])
    return obj + (1 - s["alpha"][..., None]) * under * s["shadow"][..., None]


def render_rgb(scene):
    out = background_rgb(scene.width, scene.height)
    for thing in scene.things:
        out[_box(thing)] = paint(thing, out[_box(thing)])
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def class_map(scene):
    """[height, width] of indices into CLASSES."""
    out = np.zeros((scene.height, scene.width), np.uint8)
    out[scene.horizon * CELL:] = 1
    for thing in scene.things:
        out[_box(thing)][sprite(thing.shape, thing.size)["mask"]] = CLASSES.index(thing.shape)
    return out


def depth_map(scene):
    """[height, width] distance from the camera plane in pixels, float."""
    y = np.arange(scene.height) + 0.5 - scene.horizon * CELL
    out = np.repeat((HORIZON_DEPTH + np.where(y < 0, y * TAN, -y * COT))[:, None], scene.width, 1)
    for thing in scene.things:
        s = sprite(thing.shape, thing.size)
        base = HORIZON_DEPTH - (thing.row * CELL + BASE_Y - scene.horizon * CELL) * COT
        out[_box(thing)][s["mask"]] = (base + s["depth"])[s["mask"]]
    return out


def normal_map(scene):
    """[height, width, 3] unit vectors in camera coordinates: right, up, towards the viewer."""
    camera = np.stack(((1.0, 0, 0), -SCREEN_DOWN, -VIEW))
    out = np.empty((scene.height, scene.width, 3))
    out[:], out[scene.horizon * CELL:] = camera @ (0, 0, 1.0), camera @ (0, 1.0, 0)
    for thing in scene.things:
        s = sprite(thing.shape, thing.size)
        out[_box(thing)][s["mask"]] = (s["normal"] @ camera.T)[s["mask"]]
    return out


def things_mask(scene):
    return class_map(scene) >= 2


def depth_to_grey(depth):
    return np.clip((HORIZON_DEPTH - depth) / DEPTH_SPAN * 255 + 0.5, 0, 255).astype(np.uint8)


def grey_to_depth(grey):
    return HORIZON_DEPTH - np.asarray(grey, float) / 255 * DEPTH_SPAN


def render_segmentation(scene):
    return PALETTE[class_map(scene)]


def render_depth(scene):
    return np.repeat(depth_to_grey(depth_map(scene))[..., None], 3, -1)


def render_normals(scene):
    return np.clip((normal_map(scene) * 0.5 + 0.5) * 255 + 0.5, 0, 255).astype(np.uint8)


RENDER = {"rgb": render_rgb, "segmentation": render_segmentation, "depth": render_depth, "normals": render_normals}
KINDS = tuple(RENDER)
