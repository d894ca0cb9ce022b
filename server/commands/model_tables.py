"""A model's card, fit and metrics as tables in a terminal."""

import math
from typing import Any

from common.bundle import FLOAT, QUANTIZED, Bundle
from common.qana.config import ELEMENTS
from common.qana.weights import is_statistic
from server.commands.terminal import plain_console, print_table
from server.model_lookup import FoundModel

_NOT_MEASURED = "not measured"
_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "macro_auc": "macro AUC",
    "melanoma_sensitivity": "melanoma sensitivity at 90 % specificity",
    "melanoma_sensitivity_95": "melanoma sensitivity at 95 % specificity",
}


def description(
    found: FoundModel, bundle: Bundle, counted: tuple[dict[str, float], int] | None = None
) -> dict[str, Any]:
    """Everything that ``model describe`` tells, as plain JSON values.

    ``counted`` are events of each layer and the number of images they were counted on, in place
    of those that the run's sites reported.
    ``parameters`` counts what is trained of the float network (batch norm's moving statistics
    left out), and kernels and biases of the folded, quantized chain.
    """
    card = bundle.card.model_dump(mode="json")
    floating = bundle.weights(FLOAT)
    events, images = counted or (found.mean_spikes, 0)
    return {
        "folder": str(found.folder),
        **{name: value for name, value in card.items() if name not in ("fit", "metrics")},
        "hashes": "verified",
        "parameters": {
            "float": sum(int(w.size) for n, w in floating.items() if not is_statistic(n)),
            "quantized": sum(int(w.size) for w in bundle.weights(QUANTIZED).values()),
        },
        "fit": card["fit"],
        "metrics": card["metrics"],
        "mean_spikes": events,
        "mean_spikes_sites": 0 if images else found.sites,
        "mean_spikes_images": images,
        "events": sum(events.values()) if events else None,
        "latency_ms": found.latency_ms,
        "power_mw": found.power_mw,
    }


def print_description(told: dict[str, Any]) -> None:
    """Print what `description` returned."""
    config = told["config"]
    lines = {
        "model": f"{told['run']}:{told['version']}",
        "folder": told["folder"],
        "parent": f"version {told['parent']}" if told["parent"] else "initial weights",
        "phase": told["phase"],
        "seed": told["seed"],
        "classes": f"{len(told['classes'])}: {', '.join(told['classes'])}",
        "input": (
            f"{config['input_size']} x {config['input_size']} RGB, crop "
            + (told.get("crop") or "centre (the card names none)")
        ),
        "answers": "by eight views, as its run asked"
        if told.get("all_symmetries")
        else "by one view",
        "widths": (
            f"stem {config['stem']}, stages {', '.join(map(str, config['widths']))} "
            f"(strides {', '.join(map(str, config['strides']))}; depth {config['depth']}), "
            f"transform {config['transform']}, spikes {config['spikes']}"
        ),
        "elements": ", ".join(config.get("elements", ELEMENTS)) or "none",
        "parameters": (
            f"{told['parameters']['float']:,} trained, "
            f"{told['parameters']['quantized']:,} in the folded chain"
        ),
        "software": ", ".join(f"{name} {version}" for name, version in told["software"].items()),
        "sha256": f"{told['hashes']}: {', '.join(told['sha256'])}",
        "events": _events(told),
        "latency": _measured(told["latency_ms"], "ms"),
        "power": _measured(told["power_mw"], "mW"),
    }
    console = plain_console()
    for name, value in lines.items():
        console.print(f"{name:<10}  {value}")
    _print_fit(told["fit"])
    _print_layers(told)
    validation = told["metrics"].get("validation")
    if validation:
        sites = ", ".join(told["metrics"].get("sites", []))
        print_metrics(validation, f"Validation lesions{f' of {sites}' if sites else ''}")


def print_metrics(metrics: dict[str, Any], title: str) -> None:
    """Print a `MetricSummary` in its JSON form, one line per metric."""
    # Cards of older bundles lack the newer metrics.
    rows = [_metric_row(label, metrics.get(name)) for name, label in _METRICS.items()]
    rows += [_metric_row(f"recall of {code}", value) for code, value in metrics["recall"].items()]
    rows += [_metric_row(f"AUC of {code}", value) for code, value in metrics["auc"].items()]
    print_table(title, ["metric", "value", "95 % interval", "n", ""], [r for r in rows if r])


def print_evaluation(told: dict[str, Any]) -> None:
    """Print what ``model evaluate`` found."""
    console = plain_console()
    console.print(f"model     {told['model']}")
    console.print(f"data      {told['data']}: {told['images']} images")
    eight = told["all_symmetries"]
    views = "mean over the 8 symmetries of each image" if eight else "one view of each image"
    console.print(f"computed  {told['backend']}, {views}")
    console.print(f"crop      {told['crop']}")
    for label, count in told["skipped"].items():
        console.print(f"left out  {count} images labelled {label!r}, which the model does not have")
    print_metrics(told["metrics"], "Metrics")
    print_table(
        "Confusion matrix (rows: true class, columns: predicted)",
        ["", *told["classes"]],
        [
            [code, *map(str, row)]
            for code, row in zip(told["classes"], told["confusion"], strict=True)
        ],
    )
    _print_probabilities(told["probabilities"])
    equal = told["agreement"]
    if equal:
        console.print("\nAgreement with the quantized Keras model")
        spikes, predictions = equal["equal_spikes"], equal["equal_predictions"]
        console.print(f"spikes       {_share(spikes, equal['spikes'])}")
        console.print(f"predictions  {_share(predictions, equal['images'])}")


def _print_probabilities(told: dict[str, Any]) -> None:
    """Print calibration and referral curve."""
    kinds = {
        "as_is": "softmax as it is",
        "temperature": "with a temperature",
        "with_prior": "with a temperature and the classes' frequencies",
    }
    fields = ("confidence", "accuracy", "ece", "adaptive_ece", "brier", "nll")
    print_table(
        "Calibration",
        ["probabilities", "mean confidence", "accuracy", "ECE", "adaptive ECE", "Brier", "NLL"],
        [
            [label, *(f"{told[kind][name]:.3f}" for name in fields)]
            for kind, label in kinds.items()
            if told[kind]
        ],
    )
    console = plain_console()
    if told["note"]:
        console.print(f"no temperature was fitted: {told['note']}")
    else:
        found = ", ".join(f"{each:.2f}" for each in told["temperatures"])
        console.print(f"temperature and frequencies of {told['fitted_on']}: {found}")
    curve = told["referral"]
    rows = [
        [f"{share:.0%}", *_metric_row("", accuracy)[1:3], *_metric_row("", balanced)[1:]]
        for share, accuracy, balanced in zip(
            curve["shares"], curve["accuracy"], curve["balanced_accuracy"], strict=True
        )
    ]
    areas = [_metric_row("", curve[name]) for name in ("accuracy_area", "balanced_area")]
    rows.append(["mean", *areas[0][1:3], *areas[1][1:]])
    print_table(
        f"What is left when the least confident are referred, by {told['referred_by']}",
        ["referred", "accuracy", "95 % interval", "balanced acc.", "95 % interval", "n", ""],
        rows,
    )


def _print_fit(fit: dict[str, Any]) -> None:
    rows = []
    for device, report in fit.items():
        if not report["fits"]:
            rows.append([device, f"no: {report['reason']}", str(report["layers"]), *[""] * 6])
            continue
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["nps_by_type"].items())
        rows.append(
            [
                device,
                "yes",
                str(report["layers"]),
                str(report["nps"]),
                kinds,
                str(report["passes"]),
                f"{report['program_bytes']:,}",
                f"{report['external_memory']:,}",
                f"{report['macs']:,}",
            ]
        )
    columns = ["device", "fits", "layers", "NPs", "by type", "passes"]
    print_table("Fit", [*columns, "program bytes", "external memory (bytes)", "MACs"], rows)


def _print_layers(told: dict[str, Any]) -> None:
    reports = list(told["fit"].values())
    if not reports:
        return
    rows = []
    for index, layer in enumerate(reports[0]["layers_table"]):
        mapped = [report["layers_table"][index]["nps"] for report in reports]
        spikes = told["mean_spikes"].get(layer["name"])
        rows.append(
            [
                layer["name"],
                layer["type"],
                _shape(layer["output_shape"]),
                _shape(layer["kernel"]),
                *("" if nps is None else str(nps) for nps in mapped),
                "" if spikes is None else f"{spikes:,.1f}",
            ]
        )
    columns = ["layer", "type", "output", "kernel", *(f"NPs {device}" for device in told["fit"])]
    print_table("Layers", [*columns, "events"], rows)


def _events(told: dict[str, Any]) -> str:
    """Mean events of an image, of how many outputs, and what they were counted on."""
    if told["events"] is None:
        return "not counted; --data DIR counts them on images of DIR"
    sites, images = told["mean_spikes_sites"], told["mean_spikes_images"]
    where = f"{images} images" if images else f"lesions of {sites} sites"
    layers = next(iter(told["fit"].values()))["layers_table"] if told["fit"] else []
    outputs = sum(math.prod(layer["output_shape"]) for layer in layers[:-1])
    share = f" of {outputs:,} outputs" if outputs else ""
    return f"{told['events']:,.0f}{share} per image, mean of {where}"


def _metric_row(label: str, estimate: dict[str, Any] | None) -> list[str]:
    if estimate is None:  # melanoma is not among the classes, or the card is older
        return []
    if estimate["value"] is None:
        return [label, "-", "", str(estimate["n"]), estimate["note"]]
    interval = f"{estimate['low']:.3f} to {estimate['high']:.3f}"
    return [label, f"{estimate['value']:.3f}", interval, str(estimate["n"]), estimate["note"]]


def _shape(dimensions: list[int] | None) -> str:
    return " x ".join(map(str, dimensions)) if dimensions else ""


def _measured(value: float | None, unit: str) -> str:
    return _NOT_MEASURED if value is None else f"{value:.3g} {unit} per image"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} equal ({part / whole:.2%})" if whole else "none compared"
