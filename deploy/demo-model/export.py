"""Writes the trained parts as a checkpoint folder in the published layout.

In:  codec.pt, transformer.pt, tokenizer.json in the work folder.  Out: the folder that mgptd --model takes.
"""
import argparse
import json
import os
import shutil
import torch
from safetensors.torch import save_file
from tokens import Vocabulary
from transformer import CONFIG
from vqgan import DDCONFIG, EMBED_DIM, N_EMBED

LIMIT_BYTES = 16 * 10 ** 6
POSITIONS = 2048


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def write_transformer(work, out):
    state = torch.load(os.path.join(work, "transformer.pt"), map_location="cpu")["model"]
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, os.path.join(out, "model.safetensors"), {"format": "pt"})
    os.chmod(os.path.join(out, "model.safetensors"), 0o644)     # the library makes it private
    write_json(os.path.join(out, "config.json"), {
        "architectures": ["ChameleonForConditionalGeneration"], "model_type": "chameleon", "vocab_size": len(state["lm_head.weight"]),
        **CONFIG, "hidden_act": "silu", "max_position_embeddings": POSITIONS, "rope_scaling": None, "swin_norm": False,
        "model_parallel_size": 1, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
        "mask_image_logits": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "bos_token_id": 1, "eos_token_id": 2, "vocabulary_map": None})
    write_json(os.path.join(out, "generation_config.json"), {"bos_token_id": 1, "eos_token_id": 2})


def write_codec(work, out):
    """Half precision: the tensors are small numbers, and the file counts against the limit."""
    os.makedirs(os.path.join(out, "tokenizer"), exist_ok=True)
    state = torch.load(os.path.join(work, "codec.pt"), map_location="cpu")["model"]
    torch.save({"state_dict": {k: v.half().contiguous().clone() for k, v in state.items()}}, os.path.join(out, "tokenizer", "vqgan.ckpt"))
    dd = "".join(f"      {k}: {json.dumps(v)}\n" for k, v in DDCONFIG.items())
    with open(os.path.join(out, "tokenizer", "vqgan.yaml"), "w") as f:
        f.write(f"model:\n  params:\n    embed_dim: {EMBED_DIM}\n    n_embed: {N_EMBED}\n    ddconfig:\n{dd}"
                "    lossconfig:\n      target: none\n      params: {}\n")


def export(work, out, guidance=1.5, temperature=0.65):
    os.makedirs(out, exist_ok=True)
    write_transformer(work, out)
    write_codec(work, out)
    shutil.copyfile(os.path.join(work, "tokenizer.json"), os.path.join(out, "tokenizer.json"))
    write_json(os.path.join(out, "tokenizer_config.json"), {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                                                            "pad_token": "<pad>", "unk_token": "<unk>", "add_bos_token": True,
                                                            "clean_up_tokenization_spaces": False})
    write_json(os.path.join(out, "mgpt.json"), {"target_size": 128, "default_size": "128x128",
                                                "sampling": {"temperature": temperature, "guidance_scale": guidance, "image_top_k": 2000, "text_top_k": 1}})
    total = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(out) for f in fs)
    print(f"{out}: {total} bytes")
    if total > LIMIT_BYTES:
        raise SystemExit(f"the folder has {total} bytes, the limit is {LIMIT_BYTES}")
    Vocabulary(os.path.join(out, "tokenizer.json"))


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--work", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--guidance", type=float, default=1.5)
    ap.add_argument("--temperature", type=float, default=0.65)
    a = ap.parse_args()
    export(a.work, a.out, a.guidance, a.temperature)
