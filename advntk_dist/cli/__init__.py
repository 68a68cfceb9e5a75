"""The command line: parse, call the package, print; no logic.

Heavy imports (JAX, Ray) wait inside the commands, so that help and wrong requests answer at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from advntk_dist import library_logs
from advntk_dist.cli.data import data
from advntk_dist.cli.gram import gram
from advntk_dist.cli.interrupt import interruptible, leave
from advntk_dist.cli.options import VARIABLE, completion, is_verbose, json_before, lay_out_examples
from advntk_dist.cli.reproduce import reproduce
from advntk_dist.cli.results import check, dynamics, evaluate, report
from advntk_dist.cli.run import finite_width, plan, presets, run, status
from advntk_dist.cli.submit import submit
from advntk_dist.distributed import watch
from advntk_dist.errors import AdvNTKError

_GO_ON = "nothing that was committed is lost, go on with: {again}"
_FAULTS = {
    errno.ENOSPC: (1, f"free some space; {_GO_ON}"),
    errno.EDQUOT: (1, f"free some space; {_GO_ON}"),
    errno.EIO: (1, f"the disk fails; {_GO_ON}"),
    errno.EROFS: (2, "give a folder that can be written"),
    errno.EACCES: (2, "give a place that may be read and written"),
    errno.EPERM: (2, "give a place that may be read and written"),
    errno.ENAMETOOLONG: (2, "give a shorter name"),
    errno.ENOTDIR: (2, "a file is in the way; give another folder"),
    errno.EISDIR: (3, f"a folder is in the way; move it away, and {_GO_ON}"),
}
"""What the operating system may refuse anywhere: the exit code, and how to go on."""

_EPILOG = "Complete with the Tab key: `advntk completion --help`. Every command's help has an example."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EPILOG)
@click.version_option(package_name="advntk-dist", prog_name="advntk")
@json_before
def advntk() -> None:
    """Adversarial training in the infinite-width limit: NTK dynamics and Adv-NTK at full dataset scale.

    Examples: advntk run digits

    advntk run digits --set data.name=photos --out runs/photos

    advntk report runs/photos
    """
    if not is_verbose():
        library_logs.silence()


for _command in (
    run,
    presets,
    plan,
    submit,
    status,
    data,
    gram,
    dynamics,
    evaluate,
    check,
    report,
    finite_width,
    reproduce,
    completion,
):
    advntk.add_command(_command)
lay_out_examples(advntk)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors become one line and an exit code (0 done, 2 request, 3 stored data, 1 anything else)."""
    again = shlex.join(["advntk", *(sys.argv[1:] if arguments is None else arguments)])
    stopped = f"advntk: interrupted; nothing is lost, go on with: {again}"
    with interruptible(stopped), _ray_death_told(again):
        try:
            status = advntk.main(args=arguments, prog_name="advntk", complete_var=VARIABLE, standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(0)
        except click.ClickException as error:
            click.echo(f"advntk: {error.format_message()}", err=True)
            sys.exit(2)
        except (click.Abort, KeyboardInterrupt):
            click.echo(stopped, err=True)
            if arguments is None:  # else the process is that of a program which called us
                leave(1)
            sys.exit(1)
        except AdvNTKError as error:
            # Some messages begin with the command as it is typed.
            _tell(str(error).removeprefix("advntk "))
            sys.exit(error.exit_code)
        except OSError as error:
            if error.errno not in _FAULTS:
                raise
            code, remedy = _FAULTS[error.errno]
            place = f"{error.filename}: " if error.filename else ""
            _tell(f"{place}{error.strerror}; {remedy.format(again=again)}")
            sys.exit(code)
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _ray_death_told(again: str) -> Iterator[None]:
    """Where a service of Ray dies under the command, say how to go on, and end as Ray is about to.

    Nothing is imported for it: what uses Ray finds the handler once it is loaded.
    """

    def told(what: str) -> None:
        # Not through sys.stderr, which may be in the middle of a write; nothing else can be done without Ray.
        line = (
            f"advntk: {what} of Ray on this machine has died (killed, or out of memory); {_GO_ON.format(again=again)}"
        )
        os.write(2, f"{line}\n".encode())
        os._exit(1)

    watch.on_death, before = told, watch.on_death
    try:
        yield
    finally:
        watch.on_death = before


def _tell(error: str) -> None:
    """Print an error as one line, whatever the names in it hold."""
    from advntk_dist.text import printable

    click.echo(f"advntk: {printable(error)}", err=True)
