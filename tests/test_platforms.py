"""What Linux alone has is not needed to import nightjax."""

import subprocess
import sys

from tests.helpers.places import ROOT

UNIX = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog", "crypt", "spwd", "nis")
"""Modules of Python that Windows lacks."""

CODE = f"""
import importlib, pkgutil, sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {UNIX}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
for name in {UNIX}:
    sys.modules.pop(name, None)
import nightjax
from nightjax.data import locks

modules = [module.name for module in pkgutil.walk_packages(nightjax.__path__, "nightjax.")]
for name in modules:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(modules))
"""


def test_every_module_can_be_imported_where_unix_modules_are_missing():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 150
