"""`python -m kto_cli` is `kto`; `accelerate launch -m kto_cli train ...` starts one of these per process."""

from kto_cli.cli.app import main

if __name__ == "__main__":
    main()
