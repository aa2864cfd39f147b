"""What becomes of an error: one sentence on stderr and an exit code that tells the truth."""

import sys
import traceback

from fedistill.errors import BadInput, FedistillError


def main() -> None:
    """Run the command line; exit 0 on success, 1 on failure, 2 on bad input."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    # Deferred, so that `fedistill.cli.guardian` starts without Typer and Rich.
    import click

    from fedistill.cli.app import app

    try:
        return int(app(prog_name="fedistill", standalone_mode=False) or 0)
    except FedistillError as error:
        return _report(str(error), error, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BadInput.exit_code
    except click.ClickException as error:
        return _report(error.format_message(), error, BadInput.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        return _report("interrupted", error, FedistillError.exit_code)
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        return _report(f"{type(error).__name__}: {reason}", error, FedistillError.exit_code)


def _report(sentence: str, error: BaseException, exit_code: int) -> int:
    if "--debug" in sys.argv[1:]:
        traceback.print_exception(error)
    print(f"fedistill: {sentence}", file=sys.stderr)
    return exit_code
