#!/usr/bin/env bash
# torch 2.14.1: a GradScaler skips a step whose gradient is not finite; weights and optimizer are then
# meant to stay as they are. SGD with momentum and fused=True creates its momentum buffer in the first
# step with torch.empty_like, and its kernel returns without writing it if the step is skipped. The
# uninitialised memory is then the momentum of all later steps (torch/optim/sgd.py, _fused_sgd). With
# fp16 the first step is often skipped, since the initial scale is 65536. SGD without fused=True and
# fused AdamW are right.
#
# Output seen (Linux x86_64, Python 3.11, CPU), means over 100,000 weights (on another machine 2.3 and -0.21):
#   SGD, fused: momentum after a skipped first step 7.0, weight after a second step of gradient 0: -0.63
#   SGD: no momentum after a skipped first step, weight after a second step of gradient 0: 0.00
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy
venv/bin/python - <<'PYTHON'
import sys

import torch


def run(fused):
    """Return the momentum after a skipped step, if there is any, and the weight after a second
    one."""
    weight = torch.nn.Parameter(torch.zeros(100_000))
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9, fused=fused)
    scaler, momentum = torch.amp.GradScaler("cpu"), []
    for factor in (torch.inf, 0.0):
        optimizer.zero_grad()
        scaler.scale((factor * weight).sum()).backward()
        freed = [torch.full_like(weight, 7.0) for _ in range(20)]
        del freed
        scaler.step(optimizer)
        scaler.update()
        buffer = optimizer.state[weight].get("momentum_buffer")
        momentum.append(None if buffer is None else float(buffer.mean()))
    return momentum[0], float(weight.detach().mean())


after = "weight after a second step of gradient 0:"
momentum, wrong = run(True)
print(f"SGD, fused: momentum after a skipped first step {momentum:.1f}, {after} {wrong:.2f}")
nothing, right = run(False)
print(f"SGD: no momentum after a skipped first step, {after} {right:.2f}")
sys.exit(0 if momentum and wrong and nothing is None and right == 0 else 1)
PYTHON
