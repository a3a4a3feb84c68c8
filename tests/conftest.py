"""How long an example takes says nothing on a shared machine: hypothesis sets no deadline."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
