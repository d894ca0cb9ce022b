"""Options that several commands share: the diagnosis classes, the weights of a saliency crop."""

from pathlib import Path

import click

from common.classes import HAM10000_CLASSES, ClassMap, is_code


def _as_class_map(ctx: click.Context, option: click.Parameter, value: str) -> ClassMap:
    codes = tuple(code.strip().lower() for code in value.split(","))
    if not all(codes) or len(set(codes)) != len(codes):
        raise click.BadParameter("give distinct class codes separated by commas")
    unusable = [code for code in codes if not is_code(code)]
    if unusable:
        raise click.BadParameter(
            f"{unusable[0]!r} is no class code: use up to 32 letters a to z, digits, '_' and '-'"
        )
    return ClassMap(codes)


classes_option = click.option(
    "--classes",
    default=",".join(HAM10000_CLASSES.codes),
    show_default=True,
    callback=_as_class_map,
    help="Class codes that may occur, separated by commas.",
)


saliency_weights_option = click.option(
    "--saliency-weights",
    metavar="FILE",
    default="",
    callback=lambda ctx, option, value: str(Path(value).resolve()) if value else "",
    help="ResNet-50's weights as tf_keras.applications downloads them, for the crops saliency and "
    "grad-cam.  [default: EfficientNet-Lite0 of the extra 'saliency']",
)
