"""Trains the small code model: checkpoints and a loss log under the cache, the model itself in its folder.

The same command trains on a GPU where there is one (bf16, larger batches with `--batch`), else on the CPU in f32.

    python scripts/train/train.py --minutes 60
    python scripts/train/train.py --until 17:30
    python scripts/train/train.py --tokens 2e9 --batch 131072
    python scripts/train/train.py --minutes 60 --resume

* The budget is a number of tokens, or minutes of this process's own time on the CPU (all its threads; a paused process
  loses nothing), or of the clock on a GPU, or ends at a time of the day. All schedules run over the spent share of it.
* Windows get longer (`STAGES`), so that cheap short ones teach the language and long ones the use of a far context.
* Matrices learn by Muon (momentum, orthogonalized), the embedding and the norms by Adam.
* The model starts with heads that copy from context (`model.py`), and early on many windows hold a passage twice, so that
  these heads are worth keeping. A run without both had learned no copying at all after 2 million tokens.
"""

import argparse
import csv
import datetime
import json
import math
import os
import sys
import time
from pathlib import Path

# A thread that waits for one whose core another program has must not spend the budget: before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

import data
from export import export
from model import Model, Shape

CACHE = Path.home() / ".cache/pie-pool/train"
OUT = Path(__file__).resolve().parents[2] / "models/pie-coder"
# Until which share of the budget windows have which length, and a step how many times the batch.
STAGES = [(0.25, 256, 1), (0.5, 512, 1), (0.7, 1024, 2), (0.85, 2048, 2), (1.0, 4095, 4)]
# Warm-up and final decay of the learning rates, as shares of the budget.
WARM_UP, DECAY = 0.01, 0.5
# Windows with a passage twice: their share at first, and from when on the smaller one.
REPEATS, REPEATS_UNTIL, REPEATS_THEN = 0.5, 0.2, 0.08
HELD_OUT_WINDOWS, HELD_OUT_LENGTH = 24, 512
TESTED = [*data.LANGUAGES, "again"]


class Muon(torch.optim.Optimizer):
    """Momentum whose step is brought near an orthogonal matrix: all directions of a matrix learn alike."""

    def __init__(self, weights, rate, momentum=0.95, decay=0.01):
        super().__init__(weights, {"lr": rate, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for weight in group["params"]:
                shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                steps = []
                for weight in weights:
                    state = self.state[weight]
                    mean = state.setdefault("mean", torch.zeros_like(weight))
                    mean.lerp_(weight.grad, 1 - group["momentum"])
                    steps.append(weight.grad.lerp(mean, group["momentum"]))
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for weight, step in zip(weights, orthogonal(torch.stack(steps))):
                    weight.mul_(1 - group["lr"] * group["decay"]).add_(step, alpha=-scale)


def orthogonal(matrices, rounds=4):
    """Newton and Schulz's iteration to the nearest orthogonal matrices, roughly; a stack at a time."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Budget:
    """The spent share of the tokens or minutes."""

    def __init__(self, tokens, minutes, until, threads, on_gpu, spent):
        self.tokens = tokens
        self.clock = time.time if on_gpu or until else lambda: time.process_time() / threads
        self.start = self.clock() - spent
        self.seconds = seconds_until(until) + spent if until else 60 * minutes

    def used(self):
        return self.clock() - self.start

    def share(self, tokens):
        return min(1.0, tokens / self.tokens if self.tokens else self.used() / self.seconds)


def seconds_until(time_of_day):
    """From now to the next HH:MM on the local clock."""
    now = datetime.datetime.now()
    hour, minute = map(int, time_of_day.split(":"))
    return (now.replace(hour=hour, minute=minute, second=0, microsecond=0) - now).total_seconds() % 86400


def stage_at(share):
    return next((length, times) for until, length, times in STAGES if share <= until)


def rate_at(share):
    """Warm-up, plateau, linear decay to nearly nothing."""
    return min(1.0, share / WARM_UP + 0.02, max(0.01, (1 - share) / DECAY))


def batch_at(windows, share, tokens, length):
    """Whole windows of about `tokens` tokens; some with a passage twice, at any distance."""
    rows, chance = windows.batch(max(1, tokens // length), length), windows.random
    repeats = max(REPEATS * (1 - share / REPEATS_UNTIL), REPEATS_THEN)
    for row in rows:
        if chance.random() < repeats:
            size = int(np.exp(chance.uniform(np.log(24), np.log(length // 2))))
            first = int(chance.integers(1, length - 2 * size + 1))
            second = int(chance.integers(first + size, length - size + 2))
            row[second:second + size] = row[first:first + size]
    return rows


def held_out(tokens, special):
    """Fixed windows of the validation split, a stack for each language."""
    windows = data.Windows(tokens, special, seed=7)
    return {language: torch.from_numpy(np.stack([windows.window(language, HELD_OUT_LENGTH, fim_share=0)
            for _ in range(HELD_OUT_WINDOWS)]).astype(np.int64)) for language in data.LANGUAGES}


@torch.no_grad()
def validate(model, stacks, device):
    """Loss by language, and `again`: on a passage that comes a second time."""
    found = {language: float(torch.cat([model.loss(part.to(device), "none") for part in stack.split(8)]).mean())
             for language, stack in stacks.items()}
    passages = torch.cat([stack[:4, :129] for stack in stacks.values()]).to(device)
    return found | {"again": float(model.loss(torch.cat((passages, passages[:, 1:]), dim=1), "none")[:, 128:].mean())}


def parse():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=60, help="of processor time (GPU: of the clock)")
    arguments.add_argument("--until", metavar="HH:MM", help="the time of the day when training ends, instead")
    arguments.add_argument("--tokens", type=float, help="a budget in tokens instead")
    arguments.add_argument("--batch", type=int, default=2048, help="tokens in a step")
    arguments.add_argument("--rate", type=float, default=0.02, help="Muon's learning rate")
    arguments.add_argument("--table-rate", type=float, default=0.004, help="Adam's, for embedding and norms")
    arguments.add_argument("--cache", type=Path, default=CACHE)
    arguments.add_argument("--run", default="run", help="folder of checkpoint and log in the cache")
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--save-minutes", type=float, default=10, help="between checkpoints, by the clock")
    arguments.add_argument("--test-steps", type=int, default=100, help="between tests on the validation packages")
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--resume", action="store_true")
    arguments.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="faster; needs a C++ compiler")
    arguments.add_argument("--no-export", dest="export", action="store_false")
    for name, field in Shape.__dataclass_fields__.items():
        arguments.add_argument(f"--{name.replace('_', '-')}", type=type(field.default), default=field.default)
    return arguments.parse_args()


def main():
    given = parse()
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    tokenizer = data.open_tokenizer(given.out)
    special = data.Special(tokenizer)
    sizes = {name: getattr(given, name) for name in Shape.__dataclass_fields__}
    sizes["vocab_size"] = tokenizer.get_vocab_size()
    model = Model(Shape(**sizes)).to(device)
    windows = data.Windows(data.tokenize(tokenizer, given.cache / "train.jsonl"), special, given.seed)
    stacks = held_out(data.tokenize(tokenizer, given.cache / "validation.jsonl"), special)

    folder = given.cache / given.run
    folder.mkdir(parents=True, exist_ok=True)
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    tables = [weight for name, weight in model.named_parameters() if weight.ndim == 1 or "embed" in name]
    optimizers = [Muon(matrices, given.rate), torch.optim.AdamW(tables, given.table_rate, betas=(0.9, 0.95), weight_decay=0, fused=True)]
    base = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    step, tokens, spent = 0, 0, 0.0
    if given.resume:
        kept = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=False)
        model.load_state_dict(kept["model"])
        for optimizer, state in zip(optimizers, kept["optimizers"]):
            optimizer.load_state_dict(state)
        windows.random.bit_generator.state = kept["random"]
        step, tokens, spent = kept["step"], kept["tokens"], kept["spent"]
    loss_of = torch.compile(model.loss, dynamic=False) if given.compile else model.loss
    head = ["step", "tokens", "minutes", "length", "rate", "loss", *TESTED]
    before = list(csv.reader((folder / "loss.csv").open()))[1:] if given.resume else []
    writer = csv.writer((folder / "loss.csv").open("w", newline="", buffering=1), lineterminator="\n")
    # What was logged after the checkpoint comes again.
    writer.writerows([head, *(row for row in before if int(row[0]) <= step)])
    numbers = sum(weight.numel() for weight in model.parameters())
    print(f"{numbers / 1e6:.1f} M parameters, {sum(map(len, windows.tokens.values())) / 1e6:.1f} M tokens of text, {device}", flush=True)

    def save():
        state = {"model": model.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers], "step": step,
                 "tokens": tokens, "spent": budget.used(), "random": windows.random.bit_generator.state}
        torch.save(state, folder / "checkpoint.new")
        os.replace(folder / "checkpoint.new", folder / "checkpoint.pt")
        facts = {"step": step, "tokens": tokens, "minutes": round(budget.used() / 60, 1), "threads": given.threads, "device": device,
                 "parameters": numbers, "batch": given.batch, "rate": given.rate, "table_rate": given.table_rate, "stages": STAGES,
                 "text_tokens": {language: len(own) for language, own in windows.tokens.items()}, "done": share >= 1}
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
        if given.export:
            export(model, special, given.out)

    budget = Budget(given.tokens, given.minutes, given.until, given.threads, on_gpu, spent)
    share, saved, shown, losses, tested = budget.share(tokens), time.monotonic(), time.monotonic(), [], step
    while share < 1:
        length, times = stage_at(share)
        batch = torch.from_numpy(batch_at(windows, share, times * given.batch, length)).to(device)
        # Pieces that fit the memory and the caches.
        pieces = batch.split(max(1, (32768 if on_gpu else 4096) // length))
        total = 0.0
        for piece in pieces:
            with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
                loss = loss_of(piece) * (len(piece) / len(batch))
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            sys.exit(f"the loss is {total} at step {step}; resume with a smaller --rate")
        torch.nn.utils.clip_grad_norm_(tables, 1.0)
        for optimizer, rate in zip(optimizers, base):
            optimizer.param_groups[0]["lr"] = rate * rate_at(share)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + batch[:, 1:].numel()
        losses.append(total)
        share = budget.share(tokens)
        if step - tested >= given.test_steps or share >= 1:
            tested, tested_losses = step, validate(model, stacks, device)
        else:
            tested_losses = None
        if step % 10 == 0 or tested_losses:
            mean = sum(losses) / len(losses)
            shown_losses = [f"{tested_losses[language]:.4f}" for language in TESTED] if tested_losses else [""] * len(TESTED)
            writer.writerow([step, tokens, f"{budget.used() / 60:.2f}", length, f"{rate_at(share):.3f}", f"{mean:.4f}", *shown_losses])
            now = time.monotonic()
            print(f"{100 * share:5.1f} %  step {step}  {tokens / 1e6:.2f} M tokens  length {length}  loss {mean:.3f}  "
                  f"{now - shown:.0f} s  {' '.join(shown_losses)}", flush=True)
            losses, shown = [], now
        if time.monotonic() - saved > 60 * given.save_minutes:
            save()
            saved = time.monotonic()
    save()
    print("done", flush=True)


if __name__ == "__main__":
    main()
