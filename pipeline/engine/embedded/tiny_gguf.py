"""Write a random-weight Llama as GGUF with numpy and gguf alone: nothing to download, no torch.

    python tiny_gguf.py OUT.gguf --layers 8 --hidden 512 --heads 8 --kv-heads 4 --intermediate 1792 --vocab 4096

The same arguments give the same bytes. The file is complete or absent: it is written under another name and renamed.
Weights are f16: OpenVINO GenAI 2026.4.1 reads that from a GGUF and does not load q8_0.
"""

import argparse
import itertools
import os
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

WEIGHT_STD = 0.02
"""Standard deviation of every matrix. Source: `initializer_range` of the Llama family's configs."""

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>")
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LLAMA_RMS_EPSILON = 1e-5
LLAMA_ROPE_BASE = 10_000.0
GGUF_FILE_TYPE_F16 = 1


def byte_alphabet() -> list[str]:
    """One character per byte, as GPT-2's byte-level BPE has it: printable bytes as they are, the rest from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    substitutes = itertools.count(256)
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens and BPE merges: special tokens, all bytes, then every pair of letters, every triple, until full."""
    tokens, merges = [*SPECIAL_TOKENS, *byte_alphabet()], list[str]()
    stems = list(string.ascii_lowercase)
    while len(tokens) < size:
        pairs = list(itertools.islice(itertools.product(stems, string.ascii_lowercase), size - len(tokens)))
        merges += [f"{stem} {letter}" for stem, letter in pairs]
        stems = [stem + letter for stem, letter in pairs]
        tokens += stems
    return tokens, merges


def matrix_shapes(args: argparse.Namespace) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name and shape (rows, columns) of every weight matrix of a Llama, in the order they are drawn and written."""
    kv_width = args.hidden // args.heads * args.kv_heads
    yield "token_embd", (args.vocab, args.hidden)
    if not args.tie_embeddings:
        yield "output", (args.vocab, args.hidden)
    for layer in range(args.layers):
        yield f"blk.{layer}.attn_q", (args.hidden, args.hidden)
        yield f"blk.{layer}.attn_k", (kv_width, args.hidden)
        yield f"blk.{layer}.attn_v", (kv_width, args.hidden)
        yield f"blk.{layer}.attn_output", (args.hidden, args.hidden)
        yield f"blk.{layer}.ffn_gate", (args.intermediate, args.hidden)
        yield f"blk.{layer}.ffn_up", (args.intermediate, args.hidden)
        yield f"blk.{layer}.ffn_down", (args.hidden, args.intermediate)


def norm_names(layers: int) -> Iterator[str]:
    """Names of the normalisation weights, all ones."""
    yield "output_norm"
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm"
        yield f"blk.{layer}.ffn_norm"


def add_metadata(writer: GGUFWriter, args: argparse.Namespace) -> None:
    """Architecture and tokenizer, under the keys that llama.cpp defines."""
    writer.add_name("tiny-llama")
    writer.add_file_type(GGUF_FILE_TYPE_F16)
    writer.add_block_count(args.layers)
    writer.add_embedding_length(args.hidden)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_feed_forward_length(args.intermediate)
    writer.add_context_length(args.context)
    writer.add_rope_dimension_count(args.hidden // args.heads)
    writer.add_rope_freq_base(LLAMA_ROPE_BASE)
    writer.add_layer_norm_rms_eps(LLAMA_RMS_EPSILON)
    writer.add_vocab_size(args.vocab)
    tokens, merges = vocabulary(args.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL_TOKENS else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)  # noqa: FBT003  # gguf's own signature
    writer.add_chat_template(CHAT_TEMPLATE)


def write(path: Path, args: argparse.Namespace) -> None:
    """Write the whole model to `path`."""
    rng = np.random.default_rng(args.seed)
    writer = GGUFWriter(path, "llama")
    add_metadata(writer, args)
    for name in norm_names(args.layers):
        writer.add_tensor(f"{name}.weight", np.ones(args.hidden, dtype=np.float32))
    for name, shape in matrix_shapes(args):
        weights = rng.standard_normal(shape, dtype=np.float32) * WEIGHT_STD
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def parse_args() -> argparse.Namespace:
    """Read and check the command line; an impossible architecture ends with one line and exit status 2."""
    parser = argparse.ArgumentParser(description="Write a random-weight Llama as GGUF.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=1792)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--context", type=int, default=8192, help="longest context in tokens")
    parser.add_argument("--tie-embeddings", action="store_true", help="use the embedding as the output matrix")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    smallest_vocab = len(SPECIAL_TOKENS) + 256
    if min(args.layers, args.hidden, args.heads, args.kv_heads, args.intermediate, args.context) < 1:
        parser.error("every size must be at least 1")
    if args.hidden % (2 * args.heads):
        parser.error(
            f"--hidden {args.hidden} must be a multiple of 2 x --heads {args.heads} (rotary embeddings turn pairs)"
        )
    if args.heads % args.kv_heads:
        parser.error(f"--heads {args.heads} must be a multiple of --kv-heads {args.kv_heads}")
    if args.vocab < smallest_vocab:
        parser.error(f"--vocab {args.vocab} must be at least {smallest_vocab}: special tokens and one token per byte")
    return args


def main() -> None:
    """Write under a temporary name in the same folder, then rename."""
    args = parse_args()
    partial = args.out.with_name(f"{args.out.name}.{os.getpid()}.partial")
    try:
        write(partial, args)
        partial.replace(args.out)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
