"""Write golden.json from torchvision (0.28 was used): `python tests/models/make_golden.py`,
torchvision installed.
"""

import json

import torch
import torchvision.models
from test_golden import CASES, GOLDEN, case_id, fill_, image, signature


def reference(arch, args):
    """Return torchvision's network, of MobileNetV3 also in another width."""
    if arch.startswith("mobilenet_v3") and "width_mult" in args:
        rows, last = torchvision.models.mobilenetv3._mobilenet_v3_conf(
            arch, width_mult=args["width_mult"]
        )
        return torchvision.models.MobileNetV3(rows, last, num_classes=args["num_classes"])
    return getattr(torchvision.models, arch)(weights=None, **args)


def main():
    """Run every case and write what it gives."""
    golden = {}
    for arch, args, scale in CASES:
        module = reference(arch, args)
        entry = {"signature": signature(module)}
        if scale:
            with torch.no_grad():
                entry["logits"] = [
                    round(value, 6) for value in fill_(module, scale)(image())[0].tolist()
                ]
        golden[case_id(arch, args)] = entry
    lines = (f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in golden.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
