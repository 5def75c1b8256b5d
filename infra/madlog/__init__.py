"""madlog: the event-sourced message log that agents talk through."""

__version__ = "0.1.0"
__all__ = ("__version__",)
