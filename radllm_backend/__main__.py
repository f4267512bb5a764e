"""``python -m radllm_backend`` is the ``radllm`` command."""

from radllm_backend.cli import main

main()
