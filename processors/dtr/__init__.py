"""DTR, the decision tree router: what settles a turn by its form, in microseconds."""

__all__ = ()
