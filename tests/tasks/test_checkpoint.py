"""A checkpoint that is saved over another one is killed at every step: one of them is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SAVES = """
import json, os, signal, sys
from pathlib import Path
import torch
from tasks.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint
from tasks.classifiers import build_model
from tasks.draws import Draws
from tasks.serving.output import make_output
from tasks.serving.spec import ServingSpec
from tasks.training_spec import TrainingSpec
torch.set_num_threads(1)

spec = TrainingSpec(architecture="small-resnet", width=4)
def model(value, served):
    serving = ServingSpec.model_validate(
        {"defense": {"name": "purification"}} if served else {}
    )
    module = build_model(spec, 4, Draws(0))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    meta = CheckpointMeta(training=spec, num_classes=4, image_size=16, losses=(value,),
                          serving=serving)
    return Checkpoint(module, meta, make_output(serving.defense, 4))

def killed_at(step, folder, checkpoint):
    '''Save in a process that is killed before its change number `step` of the disk.'''
    if (child := os.fork()) == 0:
        left = step
        def counted(change):
            def change_or_die(*args, **kwargs):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return change(*args, **kwargs)
            return change_or_die
        def torn(path, data, write=Path.write_bytes):
            nonlocal left
            if left == 0:
                write(path, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return write(path, data)
        Path.write_bytes = torn
        Path.replace, Path.unlink, Path.mkdir = map(
            counted, (Path.replace, Path.unlink, Path.mkdir)
        )
        checkpoint.save(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def value(folder):
    found = load_checkpoint(folder)
    values = {float(p.detach().flatten()[0]) for p in found.module.parameters()}
    assert values == {found.meta.losses[0]}, values
    return found.meta.losses[0]

root, found = Path(sys.argv[1]), []
for served in (False, True):
    for step in range(100):
        folder = root / f"{served}-{step}"
        model(1.0, served).save(folder)
        ended = killed_at(step, folder, model(2.0, not served))
        read = value(folder)
        model(3.0, served).save(folder)  # whatever was left, the next one is saved and read
        assert value(folder) == 3.0
        left = [p.name for p in folder.iterdir() if p.name.endswith((".next"))]
        assert not left, left
        found.append([served, step, ended, read])
        if ended == 0:
            break
print(json.dumps(found))
"""


def test_a_kill_at_any_step_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SAVES, str(tmp_path)], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    for served in (False, True):
        read = [value for kind, _, code, value in found if kind == served]
        codes = [code for kind, _, code, _ in found if kind == served]
        assert codes == [-9] * (len(codes) - 1) + [0]
        assert len(codes) > 8
        assert read == sorted(read)  # the old one, and from one step on the new one
        assert (read[0], read[-2], read[-1]) == (1.0, 2.0, 2.0)
