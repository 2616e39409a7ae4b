"""Model files, logits and states written by hand, as docs/artifact.md describes them, with a digest
that is right.

Independent of the package's own writer, so that a header of any content can be given a valid
digest.
"""

import base64
import hashlib
import io
import json
import zipfile
import zlib
from typing import Any

import torch
from torch import Tensor

MEMBER = "archive/fertool.json"


def read(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a file that is whole."""
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    return json.loads(loaded["spec"]), loaded["state_dict"]


def write(header: str, tensors: dict[str, Tensor]) -> bytes:
    """Return a file with this header text.

    Its digest is put right where the text is an object with one.
    """
    text = signed(header, tensors)
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors, "spec": text}, buffer)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), text.encode("utf-8", "surrogatepass"))
    return buffer.getvalue()


def graph_of(header: dict[str, Any]) -> dict[str, Any]:
    """Return the graph of a header: JSON behind zlib and base85."""
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b85decode(header["graph"])))
    return found


def with_graph(header: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the header with this text in the place of its graph's JSON."""
    packed = zlib.compress(text.encode("utf-8", "surrogatepass"), level=1)
    return {**header, "graph": base64.b85encode(packed).decode()}


def signed(header: str, tensors: dict[str, Tensor]) -> str:
    """Return the header's text with the digest of itself and the tensors."""
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError):
        return header
    if not isinstance(fields, dict) or not isinstance(fields.get("digest"), str):
        return header
    old = fields["digest"]
    fields["digest"] = ""
    digest = hashlib.sha256(canonical(fields).encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            return header
        described = [name, str(tensor.dtype), list(tensor.shape)]
        digest.update(canonical(described).encode())
        if tensor.layout == torch.strided and tensor.numel() < 10**7:
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    fields["digest"] = digest.hexdigest()
    # Where the text is no canonical JSON (NaN, a key twice) it has to stay as it is.
    return canonical(fields) if old else header


def canonical(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
