"""Set up a search from the options of `nasdsl search`, and run it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.cli.errors import fail
from nasdsl.cli.feature_cache import report_feature_cache
from nasdsl.cli.files import SPACE_FILES, find_nas_file, load_decoder
from nasdsl.cli.options import command_line, is_default, parse_assignments
from nasdsl.cli.output import RejectionReporter, echo_err
from nasdsl.cli.training_plan import resolve_backbone_weights, resolve_split, warn_random_backbone, with_recipe
from nasdsl.decoder import REFERENCE_BACKBONE
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.config import is_started, read_config
from nasdsl.search.detectors import key_name, proxy_specs
from nasdsl.search.progressive import SearchResult, plain_search, progressive_search, with_fixed_fpn
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.spaces import Space, SpaceError, load_space
from nasdsl.training.proxy.defaults import default_settings, describe, settings_of_earlier
from nasdsl.training.proxy.spec import ProxySpec

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.decoder import Decoder
    from nasdsl.search.full_training import FullTraining

PAPER_TRIALS, PAPER_TOP, PLAIN_TRIALS = 2800, 20, 500
"""Default numbers of trials and of full trainings. The paper's (arXiv:1906.04423, section 4.1.1) are for the fpn stage of a
progressive search, the last for a search without stages."""

_PROXY_OPTIONS = {
    "iterations": "iterations", "proxy_size": "size", "proxy_batch": "batch_size", "proxy_learning_rate": "learning_rate",
    "val_share": "val_share", "dtype": "dtype", "device": "device",
}  # fmt: skip
"""Options that set a setting of the proxy task, with the name of the setting."""


def run(options: SimpleNamespace) -> tuple[SearchResult, ProxySpec]:
    """Run the search; returns its outcome and the proxy task."""
    from nasdsl.data import check_classes, open_dataset

    trained = options.top or (options.stage_names and (options.top is None or options.head_top))
    val_split = None if options.val_split == "none" else options.val_split
    chosen = {"split_share": options.split_share, "split_seed": options.split_seed}
    if trained and not options.full_data:  # the full training needs a validation split, which the search must not see
        chosen = resolve_split(options.spec, options.split, val_split, options.split_share, options.split_seed)
    options.data = {"classes": options.class_names, **chosen}
    options.earlier = _is_of_earlier_version(options)
    data = open_dataset(options.spec, options.split, **options.data)
    if options.class_names is not None:
        check_classes(data, options.class_names)
    echo_err("\n".join(data.summary()))
    space = None
    if options.stage_names != ("head",):
        space = _load_space(options.file or "zoo:nas_fcos_fpn", options.width, options, data)
    head_width = None if options.head_width is None else (options.head_width,)
    head = _load_space(options.head_space, head_width, options, data) if "head" in options.stage_names else None
    fixed = _decoder_as_space(options.fpn or "zoo:fcos", options) if space is None else None
    first = space or fixed
    assert first is not None
    options.backbone_names = first.backbones or options.backbone or (REFERENCE_BACKBONE,)
    options.sizes = first.sizes or options.size or ()
    proxy = make_proxy_spec(options, first.inputs, len(data))
    smaller = options.proxy_size is not None or any(change.partition("=")[0].strip() == "size" for change in options.proxy)
    shorter_side = proxy.size if smaller else None
    detectors = proxy_specs(first, proxy, shorter_side=shorter_side, weights=lambda name: _proxy_weights(options, name))
    if len(detectors) == 1:
        proxy = next(iter(detectors.values()))
    for key, spec in detectors.items():
        if spec.image_size is not None:
            height, width = spec.image_size
            part = "whole" if spec.whole_images else f"crops of {spec.size}x{spec.size}"
            echo_err(f"proxy task of {key_name(key)}: images of {height}x{width}, {part}")
    if not any(spec.image_size for spec in detectors.values()):
        echo_err(f"proxy task: {describe(proxy)}")
    trials, top = (PAPER_TRIALS, PAPER_TOP) if options.stage_names else (PLAIN_TRIALS, 0)
    trials, top = (d if value is None else value for value, d in ((options.trials, trials), (options.top, top)))
    how = _search_options(options)
    stage = None
    if space is not None:
        stage = Stage(
            space=space, proxy=proxy, trials=trials, evaluations=options.evaluations, top=top, detectors=detectors,
            supernet=_supernet_spec(options),
        )  # fmt: skip
    heads = None
    if head is not None:
        heads = Stage(
            space=head, proxy=proxy, trials=options.head_trials, evaluations=options.evaluations, top=options.head_top,
            detectors=detectors,
        )  # fmt: skip
    full = _full_training(options, [s for s in (stage, heads) if s is not None])
    report_feature_cache(data, list(detectors.values()) or [proxy], None if head is None else _fpn_for_heads(head, first))
    if not options.stage_names:
        assert stage is not None
        return plain_search(stage, options.out, how, full, resume=options.resume), proxy
    text = str(fixed.decode(())) if fixed is not None else None
    return progressive_search(options.out, stage, heads, how, full, on=text, resume=options.resume), proxy


def make_proxy_spec(options: SimpleNamespace, levels: tuple[str, ...], images: int) -> ProxySpec:
    """Make the proxy task from the options.

    Args:
        levels: backbone features that it caches.
        images: number of images, by which the defaults are chosen.
    """
    given = _default_settings(options, images) | {
        to: getattr(options, name) for name, to in _PROXY_OPTIONS.items() if getattr(options, name) is not None
    }
    if "size" in given:  # the ratio of the longer side's limit to the shorter side is that of the full training, 1333 to 800
        given["longest"] = round(given["size"] * 1333 / 800)
    if options.memory_limit is not None:
        given["memory_limit"] = int(options.memory_limit * 2**30)
    given |= {
        "split": options.split,
        **options.data,
        "backbone": options.backbone_names[0],
        "backbone_weights": _proxy_weights(options, options.backbone_names[0]),
        "levels": tuple(sorted(levels)),
        "mirror": not options.no_mirror,
        "reward": options.reward,
        "seed": options.seed,
        "method": parse_assignments("--method", options.method, "center_radius=1.5"),
        "cache": str((options.cache or options.out / "features").absolute()),
    }
    changes = parse_assignments("--proxy", options.proxy, "average=0.9")
    known = [field.name for field in dataclasses.fields(ProxySpec) if field.name not in ("data", "fpn")]
    unknown = [name for name in changes if name not in known]
    if unknown:
        fail(f"--proxy {unknown[0]}: the proxy task has no such setting; it has {', '.join(known)}")
    try:
        return ProxySpec(options.spec, **{**given, **changes})
    except TypeError as error:  # a string where a number is expected
        fail(f"--proxy: a value is of the wrong kind ({error})")


def _supernet_spec(options: SimpleNamespace) -> SupernetSpec | None:
    """Settings of the weight-sharing network; None if decoders are trained one by one."""
    if options.evaluate != "supernet":
        return None
    changes = parse_assignments("--supernet", options.supernet, "iterations=3000")
    known = [field.name for field in dataclasses.fields(SupernetSpec)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        fail(f"--supernet {unknown[0]}: there is no such setting; expected one of {', '.join(known)}")
    try:
        return SupernetSpec(**{"seed": options.seed, **changes})
    except TypeError as error:  # a string where a number is expected
        fail(f"--supernet: a value is of the wrong kind ({error})")


def _default_settings(options: SimpleNamespace, images: int) -> dict[str, Any]:
    """Settings of the proxy task for options that are not given: those of the search that is resumed, else for the data."""
    earlier = read_config(options.out) if options.resume else None
    if earlier is not None:
        return settings_of_earlier(earlier.get("proxy", {}))
    return {} if options.stage_names else dict(default_settings(images))  # a progressive search is the paper's


def _load_space(file: str, widths: tuple[int, ...] | None, options: SimpleNamespace, data: Dataset) -> Space:
    """Load a search space for the detectors that the options name, and the classes of the dataset.

    Args:
        widths: of fpn and head. None: those of the space.
    """
    backbone = options.backbone[0] if options.backbone else None
    space = load_space(find_nas_file(file, SPACE_FILES), backbone=backbone, classes=len(data.classes))
    space.on_rejections = RejectionReporter()
    space = space if widths is None else space.with_width(*widths)
    if not options.earlier:
        space = space.with_detector(options.size or (), options.backbone or ())
    if not space.domains:
        fail(f"{file} has no holes, so there is nothing to search: `nasdsl train` trains it")
    return space


def _decoder_as_space(file: str, options: SimpleNamespace) -> Space:
    """Load a decoder without holes, as a space that has only this decoder, for the detector that the options name."""
    space = load_space(find_nas_file(file))
    if space.domains:
        fail(f"{file} has holes; expected a decoder without holes, whose fpn the heads read")
    for name, values in (("size", options.size), ("backbone", options.backbone)):
        if values and len(values) > 1:
            fail(f"--{name} has several values; --stages head searches heads on one fpn, which is for one detector")
    return space if options.earlier else space.with_detector(options.size or (), options.backbone or ())


def _is_of_earlier_version(options: SimpleNamespace) -> bool:
    """Whether a search is resumed that an earlier version began, in which --size was what costs are counted for alone.

    Its texts name no size and backbone, and its proxy and full trainings have sizes of their own.
    """
    if not options.resume or not is_started(options.out):
        return False
    config = read_config(options.out) or {}
    if "detectors" in config or not (options.size or options.backbone):
        return False
    for name, values in (("size", options.size), ("width", options.width), ("backbone", options.backbone)):
        if values and len(values) > 1:
            fail(f"--{name} has several values, and {options.out} holds a search of one: give the same settings to resume it")
    echo_err(f"{options.out} is a search of an earlier version: --size is what costs are counted for, and nothing else")
    return True


def _fpn_for_heads(heads: Space, fpns: Space) -> str | None:
    """A decoder like that whose fpn the heads will be trained on; None if this sample does not fit, as others may."""
    try:
        return with_fixed_fpn(heads, str(fpns.sample(0)))[1]
    except (SpaceError, DiagnosticError):
        return None


def _search_options(options: SimpleNamespace) -> SearchSettings:
    """The options that all stages of a search share."""
    return SearchSettings(
        strategy=options.strategy,
        options=parse_assignments("--strategy-option", options.strategy_option, "population=50"),
        seed=options.seed,
        objective=options.objective,
        budgets=options.budget or None,
        stopping=options.early_stop,
        size=options.sizes[0] if options.sizes else DEFAULT_SIZE,
        workers=options.workers,
        batch=options.batch,
        timeout=options.timeout,
        about={"command": command_line()},
    )


def _full_training(options: SimpleNamespace, stages: list[Stage]) -> FullTraining | None:
    """Prepare the full training of the best decoders; None if there is none.

    Opens the datasets and adapts a sample of each stage, so that mistakes are reported before the search starts.
    """
    if options.top_minutes is not None and options.epochs is not None:
        fail("--top-minutes and --epochs both say how long the full trainings are: give one of them")
    if not any(stage.top for stage in stages):
        if options.beside:
            fail("--beside is for the full training of the best decoders: say with --top how many to train")
        return None
    from nasdsl.search.full_training import FullTraining
    from nasdsl.training.config import TrainingConfig

    shortcuts = {"seed": options.seed} | ({} if options.epochs is None else {"epochs": options.epochs})
    keep_size = any(setting.partition("=")[0].strip() == "size" for setting in options.settings)
    if stages[0].space.sizes and not keep_size:
        shortcuts["size"] = stages[0].space.sizes[0]  # each training has that of its decoder
    backbone = options.backbone_names[0]
    data = options.full_data or options.spec
    split = options.full_split or ("train" if options.full_data else options.split)
    val_split = None if options.val_split == "none" else options.val_split
    divided = resolve_split(data, split, val_split, None, None) if options.full_data else options.data
    plan = TrainingConfig(
        data=data,
        split=split,
        val_split=val_split,
        classes=options.class_names,
        split_share=divided["split_share"],
        split_seed=divided["split_seed"],
        backbone=backbone,
        backbone_weights=_full_training_weights(options, backbone),
        freeze_at=options.freeze_at,
        norm=options.norm,
        width=options.full_width,
        method=parse_assignments("--method", options.method, "center_radius=1.5"),
    )
    compared = _load_compared(options.beside)
    samples = [stage.space.load(stage.space.sample(0)) for stage in stages]
    full = FullTraining(
        plan, compared, options.device, {"command": command_line()}, options.top_minutes,
        {name: _full_training_weights(options, name) for name in options.backbone_names}, keep_size,
    )  # fmt: skip
    training, _ = full.open()
    decoders = [*samples, *compared.values()]
    plan, _ = with_recipe(plan, options.recipe, shortcuts, options.settings, options.improvements, decoders, training)
    if keep_size and plan.recipe.size is not None and any(size != plan.recipe.size for size in stages[0].space.sizes):
        height, width = plan.recipe.size
        echo_err(f"--set size: the best are trained at {height}x{width}, instead of at the size that each names")
    for sample in samples:
        width = sample.architecture.fpn.width
        for decoder in (sample, *(beside.with_width(width) for beside in compared.values())):
            plan.prepare_decoder(decoder)
    warn_random_backbone(plan)
    return dataclasses.replace(full, plan=plan)


def _load_compared(files: tuple[str, ...]) -> dict[str, Decoder]:
    """Load the decoders of --beside, by unique names for their folders."""
    found: dict[str, Decoder] = {}
    for file in files:
        decoder = load_decoder(file)
        if decoder.architecture.open_holes:
            fail(f"--beside {file} has holes; expected a decoder without holes")
        name, number = decoder.name, 1
        while name in found or re.fullmatch(r"trial_\d+", name):
            number += 1
            name = f"{decoder.name}_beside_{number}"
        found[name] = decoder
    return found


def _proxy_weights(options: SimpleNamespace, backbone: str) -> str | None:
    """Weights of a frozen backbone."""
    return _weights("backbone_weights", options.backbone_weights, options, backbone, not is_default("backbone_weights"))


def _full_training_weights(options: SimpleNamespace, backbone: str) -> str | None:
    """Initial weights of a backbone in the full training: those of the search, unless they come from a detector."""
    if options.full_backbone_weights is not None:
        return _weights("full_backbone_weights", options.full_backbone_weights, options, backbone, True)
    weights = _proxy_weights(options, backbone)
    from_detector = weights is not None and (Path(weights).is_dir() or Path(weights).name == "model.pt")
    return resolve_backbone_weights("imagenet", backbone, explicit=False) if from_detector else weights


def _weights(option: str, value: str, options: SimpleNamespace, backbone: str, explicit: bool) -> str | None:
    """Weights of one of the backbones; exits on a file that would be for several."""
    several = len(options.backbone_names) > 1
    if several and value not in ("imagenet", "none"):
        names = ", ".join(options.backbone_names)
        flag = f"--{option.replace('_', '-')}"
        fail(f"{flag} {value} is for one backbone, and there are several: {names}; expected imagenet or none")
    return resolve_backbone_weights(value, backbone, explicit=explicit and not several)
