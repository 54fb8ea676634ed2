"""Which modules state shapes in their annotations."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "certtrain"
# The second is where annotations have names: what imports these states shapes, too.
STATING = ("jaxtyping import", "import jaxtyping", "certtrain.data.batches import")


def with_shapes() -> list[str]:
    """Their names: elsewhere mypy has checked all that annotations say, and a checked call is dear."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    found = [path for path, text in texts.items() if any(words in text for words in STATING)]
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in found
    ]
