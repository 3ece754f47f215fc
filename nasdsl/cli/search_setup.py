"""Set up a search from the options of `nasdsl search`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.cli.errors import fail
from nasdsl.cli.feature_cache import report_feature_cache
from nasdsl.cli.files import SPACE_FILES, find_nas_file
from nasdsl.cli.options import AUTO_SIZES, command_line, is_default, parse_assignments
from nasdsl.cli.output import RejectionReporter, echo_err
from nasdsl.cli.search_training import backbone_trainings, finetunes_backbone, full_training, proxy_weights
from nasdsl.cli.training_plan import resolve_split
from nasdsl.decoder import REFERENCE_BACKBONE
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.config import is_started, read_config
from nasdsl.search.detectors import key_name, proxy_specs
from nasdsl.search.estimate import Search
from nasdsl.search.progressive import SearchResult, plain_search, progressive_search, with_fixed_fpn
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.spaces import Space, SpaceError, load_space
from nasdsl.training.proxy.defaults import default_settings, describe, settings_of_earlier
from nasdsl.training.proxy.spec import ProxySpec

if TYPE_CHECKING:
    from nasdsl.data import Dataset

PAPER_TRIALS, PAPER_TOP, PLAIN_TRIALS = 2800, 20, 500
"""Default numbers of trials and of full trainings. The paper's (arXiv:1906.04423, section 4.1.1) are for the fpn stage of a
progressive search, the last for a search without stages."""

_PROXY_OPTIONS = {
    "iterations": "iterations", "proxy_size": "size", "proxy_batch": "batch_size", "proxy_learning_rate": "learning_rate",
    "val_share": "val_share", "dtype": "dtype", "device": "device",
}  # fmt: skip
"""Options that set a setting of the proxy task, with the name of the setting."""


@dataclass(frozen=True, kw_only=True)
class PreparedSearch(Search):
    """A search that has been checked and not begun.

    Attributes:
        options: of the command.
        proxy: the proxy task; of several detectors, that of none of them.
    """

    options: SimpleNamespace
    proxy: ProxySpec

    def run(self) -> SearchResult:
        """Run the search; see `plain_search` and `progressive_search`."""
        out, resume, settings = self.options.out, self.options.resume, self.settings
        if not self.options.stage_names:
            assert self.first is not None
            return plain_search(self.first, out, settings, self.full, backbones=self.backbones, resume=resume)
        return progressive_search(
            out, self.first, self.heads, settings, self.full, on=self.fixed, backbones=self.backbones, resume=resume
        )


def prepare(options: SimpleNamespace) -> PreparedSearch:
    """Open the data, load the spaces, and check everything that can be checked before the search begins."""
    from nasdsl.data import check_classes, open_dataset

    trained = options.top or (options.stage_names and (options.top is None or options.head_top))
    val_split = None if options.val_split == "none" else options.val_split
    chosen = {"split_share": options.split_share, "split_seed": options.split_seed}
    if trained and not options.full_data:  # the full training needs a validation split, which the search must not see
        chosen = resolve_split(options.spec, options.split, val_split, options.split_share, options.split_seed)
    options.data = {"classes": options.class_names, **chosen}
    data = open_dataset(options.spec, options.split, **options.data)
    if options.class_names is not None:
        check_classes(data, options.class_names)
    echo_err("\n".join(data.summary()))
    _resolve_sizes(options, data)
    options.earlier = _is_of_earlier_version(options)
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
    _limit_proxy_size(options)
    if options.finetune_backbone and not finetunes_backbone(options):
        echo_err(f"the backbone is that of {options.backbone_weights}, and is not fine-tuned (--finetune-backbone EPOCHS does)")
    proxy = make_proxy_spec(options, first.inputs, len(data))
    smaller = options.proxy_size is not None or any(change.partition("=")[0].strip() == "size" for change in options.proxy)
    shorter_side = proxy.size if smaller else None
    detectors = proxy_specs(first, proxy, shorter_side=shorter_side, weights=lambda name: proxy_weights(options, name))
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
    settings = _search_options(options)
    backbones = backbone_trainings(options, first)
    full = full_training(options, [s for s in (stage, heads) if s is not None])
    prepared = PreparedSearch(
        options=options, data=data, proxy=proxy, first=stage, heads=heads,
        fixed=None if fixed is None else str(fixed.decode(())), settings=settings, full=full, backbones=backbones,
    )  # fmt: skip
    fpn = None if head is None else _fpn_for_heads(head, first)
    report_feature_cache(data, list(detectors.values()) or [proxy], fpn, only_say=options.estimate)
    return prepared


def _resolve_sizes(options: SimpleNamespace, data: Dataset) -> None:
    """Replace ``--size auto`` by three sizes: half, three quarters and the whole of the one that suits the boxes."""
    from nasdsl.data.size_advice import fractions_of_size, recommend_size

    if options.size != AUTO_SIZES:
        return
    options.size = fractions_of_size(recommend_size(data).size, (0.5, 0.75, 1.0))
    echo_err(f"--size auto: {','.join(f'{height}x{width}' for height, width in options.size)} for these boxes")


def _limit_proxy_size(options: SimpleNamespace) -> None:
    """A preset's --proxy-size is at most the shorter side of the largest detector."""
    if options.proxy_size is not None and is_default("proxy_size") and options.sizes:
        options.proxy_size = min(options.proxy_size, max(map(min, options.sizes)))


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
        "backbone_weights": proxy_weights(options, options.backbone_names[0]),
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
    path, classes = find_nas_file(file, SPACE_FILES), len(data.classes)
    sizes, backbones = options.size or (), options.backbone or ()
    if options.preset and not is_default("file"):  # what the user's text says wins over what the preset chose
        own = load_space(path, classes=classes)
        sizes = () if own.sizes and is_default("size") else sizes
        backbones = () if own.backbones and is_default("backbone") else backbones
    space = load_space(path, backbone=backbones[0] if backbones else None, classes=classes)
    space.on_rejections = RejectionReporter()
    space = space if widths is None else space.with_width(*widths)
    if not options.earlier:
        space = space.with_detector(sizes, backbones)
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
        about={
            "command": command_line(),
            **({"preset": options.preset} if options.preset else {}),
            **({"backbone_training": f"{options.finetune_backbone:g} epochs"} if finetunes_backbone(options) else {}),
        },
    )
