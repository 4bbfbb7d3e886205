#!/usr/bin/env python3
"""Draws samples.png, the strip of the top README.md, with the built program and the demo model: six prompts, then a picture of the first
one's kind with what the model says of it: segmentation, depth, normals.

usage: samples.py BUILD [WEIGHTS]      needs Pillow
"""
import json
import os
import subprocess
import sys
import tempfile

from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE, GAP, COLUMNS = 128, 4, 5
PROMPTS = [("a small red sphere left of a large blue cube", 5), ("a large yellow cone right of a small green cube", 3),
           ("a small purple cylinder", 3), ("a large red sphere", 3), ("a large cyan cube left of a small orange sphere", 3), ("a large green cone", 6)]
TASKS = ["Segmentic segmentation. <|image|>", "Depth estimation. <|image|>", "Surface normal estimation. <|image|>"]


def draw(build, weights, out, *options):
    subprocess.run([os.path.join(build, "bin", "mgpt"), "inspect", "generate", "--model", weights, "--size", f"{SIZE}x{SIZE}", "-o", out,
                    *map(str, options)], check=True, stdout=subprocess.DEVNULL)
    return Image.open(out).convert("RGB")


def main():
    build = sys.argv[1]
    weights = sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "weights")
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for index, (prompt, seed) in enumerate(PROMPTS):
            pictures.append(draw(build, weights, os.path.join(folder, f"{index}.png"), "--prompt", prompt, "--seed", seed))
        conversation, subject = os.path.join(folder, "conversation.json"), os.path.join(folder, "0.png")
        pictures.append(pictures[0])
        for index, task in enumerate(TASKS):
            with open(conversation, "w") as file:
                json.dump({"images": [subject], "qas": [[task, None]]}, file)
            pictures.append(draw(build, weights, os.path.join(folder, f"task{index}.png"), "--conversation", conversation, "--seed", 1,
                                 "--guidance", 1, "--image-top-k", 200))
    rows = (len(pictures) + COLUMNS - 1) // COLUMNS
    strip = Image.new("RGB", (COLUMNS * (SIZE + GAP) - GAP, rows * (SIZE + GAP) - GAP), "white")
    for index, picture in enumerate(pictures):
        strip.paste(picture, (index % COLUMNS * (SIZE + GAP), index // COLUMNS * (SIZE + GAP)))
    strip.save(os.path.join(HERE, "samples.png"), optimize=True)


if __name__ == "__main__":
    main()
