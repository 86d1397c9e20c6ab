"""Into a wheel goes what the commands read besides code: figures with their records, but not the sets, notebooks, presets."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "figures/*.*",
    "figures/records/*.json",
    "notebooks/*.ipynb",
    "notebooks/presets.yaml",
    "notebooks/ipython/profile_default/*.py",
)


class BuildWithFigures(build_py):
    """Puts them into `ddcore/shipped/`; an editable install reads them where they are."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for path in (
                path for pattern in SHIPPED for path in Path().glob(pattern) if path.name != "index.html"
            ):
                target = Path(self.build_lib, "ddcore", "shipped", path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithFigures})
