"""Where the files that come with certtrain lie."""

from pathlib import Path

from certtrain.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The configuration: the folder `certtrain/conf` if installed, `conf` beside the package in a checkout.

    An editable install imports the package from the checkout and so finds the checkout's folder.

    Raises:
        ConfigError: neither folder holds a `config.yaml`.
    """
    candidates = (_PACKAGE / "conf", _PACKAGE.parent / "conf")
    for folder in candidates:
        if (folder / "config.yaml").is_file():
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise ConfigError(f"no configuration found: neither {looked} has a config.yaml; install certtrain again")
