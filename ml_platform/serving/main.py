"""Process main of the model server: `python -m ml_platform.serving.main`."""

import logging

import uvicorn

from ml_platform.core.settings import load_settings
from ml_platform.serving.app import create_app


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("urllib3").setLevel(
        logging.ERROR
    )  # the follower reports an unreachable registry in its own words
    settings = load_settings()
    uvicorn.run(create_app(settings), host="127.0.0.1", port=settings.model_server_port, access_log=False)


if __name__ == "__main__":
    main()
