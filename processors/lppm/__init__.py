"""LPPM, the learned prose-to-process mapper: what settles prose, in milliseconds."""

__all__ = ()
