"""Goal: the demo model draws what it is asked through the built program, and the judge of that can be trusted."""
import os
import subprocess
import sys
import unittest

import numpy as np

from harness import BUILD, ROOT

FOLDER = os.path.join(ROOT, "deploy", "demo-model")
sys.path.insert(0, FOLDER)
import judge                # noqa: E402
import scene_text           # noqa: E402
import scenes               # noqa: E402

SHORT_LIMIT_S = 600


class Judge(unittest.TestCase):
    def test_reads_rendered_scenes_exactly(self):
        for seed in range(8):
            for size in ((128, 128), (96, 160)):
                scene = scenes.sample_scene(seed, *size)
                things, stray = judge.parse(scenes.render_rgb(scene))
                self.assertEqual(things, tuple(sorted(scene.things, key=lambda t: t.col)))
                self.assertEqual(stray, 0)

    def test_sees_a_wrong_colour_and_a_fragment(self):
        scene = scenes.sample_scene(3, 128, 128, count=1)
        _, claim = scene_text.caption(scene, np.random.default_rng(0))
        picture = scenes.render_rgb(scene)
        thing = scene.things[0]
        self.assertEqual(scene_text.caption_holds(claim, judge.parse(picture)[0])[0], 1)
        other = "red" if thing.colour != "red" else "blue"
        wrong = scenes.Scene(128, 128, (scenes.Thing(thing.shape, other, thing.size, thing.col, thing.row),))
        self.assertEqual(scene_text.caption_holds(claim, judge.parse(scenes.render_rgb(wrong))[0])[0], 0)
        picture = picture.copy()
        picture[0:16, 0:16] = 0
        self.assertEqual(judge.parse(picture)[1], 1)

    def test_scenes_depend_on_seed_and_size_alone(self):
        self.assertEqual(scenes.sample_scene(5, 160, 96), scenes.sample_scene(5, 160, 96))
        self.assertNotEqual(scenes.sample_scene(5, 160, 96).things, scenes.sample_scene(6, 160, 96).things)

    def test_captions_hold_of_their_scenes(self):
        for seed in range(60):
            scene = scenes.sample_scene(seed, 128, 128)
            text, claim = scene_text.caption(scene, np.random.default_rng(seed))
            self.assertEqual(scene_text.caption_holds(claim, scene.things), (len(claim.parts), len(claim.facts), True), text)


class Measured(unittest.TestCase):
    @unittest.skipUnless(os.path.exists(os.path.join(FOLDER, "weights", "model.safetensors")), "no weights here")
    def test_the_short_evaluation_holds_its_floors(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "demo_eval"), "--build", BUILD, "--short"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SHORT_LIMIT_S)
        self.assertEqual(done.returncode, 0, done.stdout.decode(errors="replace")[-3000:])


if __name__ == "__main__":
    unittest.main()
