"""The benchmark's network behind LitServe, with what it does by default: `python -m benchmarks.litserve_app PORT`."""

import sys
from typing import Any

import litserve
import torch

from benchmarks.served import network


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network = network(0).network

    def decode_request(self, request: dict[str, Any], **_: Any) -> torch.Tensor:
        return torch.tensor(request["inputs"])

    def predict(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        with torch.inference_mode():
            return torch.sigmoid(self.network(x))

    def encode_response(self, output: torch.Tensor, **_: Any) -> dict[str, Any]:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
