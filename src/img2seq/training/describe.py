"""What a run is, written before its first step, so that an interrupted run can be read too."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

from img2seq.build.prepare import Prepared
from img2seq.config.load import LoadedConfig
from img2seq.config.show import describe, to_yaml
from img2seq.run.folder import RunFolder
from img2seq.run.write import RUN_README, sign, write_json, write_text
from img2seq.training.environment import environment


def describe_run(run: RunFolder, loaded: LoadedConfig, prepared: Prepared) -> None:
    """Write configuration, data, model and environment of a run."""
    model, config = prepared.model, loaded.experiment
    run.checkpoints.mkdir(exist_ok=True)  # before the files: with them its name reaches the disk
    run.digests.unlink(missing_ok=True)  # killed here, a run has none until it is resumed, rather than false ones
    write_text(run.config, to_yaml(config))
    write_text(run.readme, RUN_README.read_text(encoding="utf-8"))
    write_text(run.sources, describe(loaded) + "\n")
    write_text(run.tokenizer, prepared.tokenizer.to_json())
    write_text(run.data_report, prepared.report)
    write_text(run.model_text, f"{model}\n")
    sides = {"train": prepared.train.image_ids, "valid": prepared.valid.image_ids, "test": prepared.test}
    write_json(run.split, sides)
    write_json(run.environment, environment())
    if prepared.began_with:  # a run that is resumed has the file
        write_json(run.pretrained, prepared.began_with)
    parameters = {
        "all": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    write_json(run.facts, {"facts": asdict(prepared.facts), "data": prepared.data, "parameters": parameters})
    sign(run)
    _link_samples(run, config.output.name)


def _link_samples(run: RunFolder, output_name: str) -> None:
    """Let `samples` at the top of the run lead to the samples folder, where links can be made."""
    run.samples(output_name).mkdir(parents=True, exist_ok=True)
    link = run.path / "samples"
    if not link.is_symlink():
        with suppress(OSError):  # a convenience only: some file systems have no links
            link.symlink_to(run.samples(output_name).relative_to(run.path), target_is_directory=True)
