"""Compare Table 2 of the NAS-FCOS paper with computed values: FLOPs and parameters of all fifteen detectors.

    python examples/table2.py

The published code runs an adapter for C2 that nothing reads, and the table counts it. The compiler removes it, so its cost
(``removed``) is added here. A row agrees if FLOPs (G) and parameters (M) are within 0.1 of the published values.
"""

from __future__ import annotations

import sys

import nasdsl
from nasdsl import resources

# decoder of the zoo, backbone, published FLOPs (G), published parameters (M)
PUBLISHED = [
    ("retinanet", "mobilenet_v2", 133.4, 11.3),
    ("fcos", "mobilenet_v2", 105.4, 9.8),
    ("nas_fcos_128", "mobilenet_v2", 39.3, 5.9),
    ("nas_fcos_128_256", "mobilenet_v2", 95.6, 9.9),
    ("nas_fcos", "mobilenet_v2", 121.8, 16.1),
    ("retinanet", "resnet50", 198.0, 33.6),
    ("fcos", "resnet50", 169.9, 32.0),
    ("nas_fcos_128", "resnet50", 104.0, 27.8),
    ("nas_fcos_128_256", "resnet50", 160.4, 31.8),
    ("nas_fcos", "resnet50", 189.6, 38.4),
    ("retinanet", "resnet101", 262.4, 52.5),
    ("fcos", "resnet101", 234.3, 50.9),
    ("nas_fcos", "resnet101", 254.0, 57.3),
    ("fcos", "resnext101_64x4d", 371.2, 89.6),
    ("nas_fcos_128_256", "resnext101_64x4d", 361.6, 89.4),
]


def row(decoder: str, backbone: str) -> dict[str, float]:
    """Cost of a detector at 800x1088 with 80 classes: FLOPs (G), MACs of convolutions (G) and parameters (M)."""
    table = nasdsl.load(resources.folder("genotypes") / f"{decoder}.nas").cost((800, 1088), backbone, 80)
    return {
        "flops": table.total.published_flops / 1e9,
        "params": table.total.published_params / 1e6,
        "macs": (table.total.macs + sum(r.macs for r in table.removed)) / 1e9,
    }


def main() -> int:
    print(f"{'decoder':18}{'backbone':18}{'FLOPs (G)':>10}{'ours':>9}{'Params (M)':>12}{'ours':>9}{'conv MACs (G)':>15}")
    wrong = 0
    for decoder, backbone, flops, params in PUBLISHED:
        ours = row(decoder, backbone)
        fits = abs(ours["flops"] - flops) <= 0.1 and abs(ours["params"] - params) <= 0.1
        wrong += not fits
        print(
            f"{decoder:18}{backbone:18}{flops:10.1f}{ours['flops']:9.3f}{params:12.1f}{ours['params']:9.3f}"
            f"{ours['macs']:15.3f}{'' if fits else '   differs'}"
        )
    print(f"\n{len(PUBLISHED) - wrong} of {len(PUBLISHED)} rows are within 0.1 of the paper.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
