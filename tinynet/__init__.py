"""tinynet."""
import importlib
HOMES={"Value":"value","no_grad":"graph","grad":"graph"}
def __getattr__(name):
    if name in HOMES:
        return getattr(importlib.import_module("."+HOMES[name],__name__),name)
    raise AttributeError(name)
