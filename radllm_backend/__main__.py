"""``python -m radllm_backend`` is the ``radllm`` command."""

from radllm_backend.cli.main import main

main()
