"""engines/production/<name>/: exactly what was measured, ready to launch, with the decision that it rests on."""

from pipeline.bundle.write import write_bundle

__all__ = ["write_bundle"]
