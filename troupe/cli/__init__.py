"""The command `troupe`. Heavy modules are imported by the command that needs them: `--help` is instant.

Exit codes: 0 done; 1 the program failed; 2 bad input, said in one sentence; 3 nothing improved; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from troupe.errors import TroupeError, UserError

__all__ = ["main", "parse", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = parse(argv)
    if arguments.command is None:
        parser().print_help()
        return 2
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    module, function = arguments.command
    try:
        return int(getattr(import_module(module), function)(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TroupeError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues where the last checkpoint left off", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of one command line; overrides may stand before, between and after the options."""
    # argparse fills `overrides` from the first run of words between two flags and calls later words unknown (its
    # intermixed mode refuses subcommands), but `KEY=VALUE --preset NAME KEY=VALUE` is how people write Hydra's lines.
    root = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"] and words[1:2] and words[1].startswith("env="):  # the system that its first key names
        words.insert(1, "env")
    if words[:2] == ["evaluate", "trading"]:  # a command of its own: `evaluate` takes options alone
        words[:2] = ["evaluate trading"]
    arguments, rest = root.parse_known_args(words)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        root.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="troupe", description="Train teams of agents.")
    root.set_defaults(command=None)
    commands = root.add_subparsers(title="commands", metavar="COMMAND")

    demo = commands.add_parser("demo", help="train a three-agent team from nothing, and see whether it improved")
    demo.add_argument("--run-dir", default=None, help="run folder (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--shuffle-answers", action="store_true", help="negative control: must not improve, exits with 3")
    _overrides(demo)
    demo.set_defaults(command=("troupe.cli.demo", "demo"))

    train = commands.add_parser("train", help="train a system")
    systems = train.add_subparsers(title="systems", metavar="SYSTEM", required=True)
    workflow = systems.add_parser("workflow", help="a team of language agents (document 004)")
    _configured(workflow, "agent_ppo_trainer", "named preset (default: agent_ppo_trainer)")
    workflow.add_argument(
        "--dry-run", action="store_true", help="show team, credit, one conversation and memory; train nothing"
    )
    workflow.set_defaults(command=("troupe.cli.train", "train_workflow"))

    selfplay = systems.add_parser("selfplay", help="a network that learns a game by playing itself (document 001)")
    _configured(selfplay, None, "named preset (default: that of the game, if there is one)")
    selfplay.set_defaults(command=("troupe.cli.selfplay", "train_selfplay"))

    tasks = systems.add_parser("tasks", help="search and expert iteration on verifiable tasks; family=math, code, ...")
    tasks.add_argument("--tenth", action="store_true", help="a tenth of the preset, for a first look")
    _configured(tasks, None, "named preset (default: that of the family, if there is one)")
    tasks.set_defaults(command=("troupe.cli.tasks", "train_tasks"))

    env = systems.add_parser("env", help="PPO on a Gymnasium environment; `train env=CartPole-v1` for short")
    _configured(env, None, "named preset (default: that of the environment, if there is one)")
    env.set_defaults(command=("troupe.cli.env", "train_env"))

    puzzles = systems.add_parser("puzzles", help="recursive networks that solve sudokus and mazes; net=trm, hrm")
    _configured(puzzles, None, "named preset (default: that of the puzzles)")
    puzzles.set_defaults(command=("troupe.cli.puzzles", "train_puzzles"))

    market = systems.add_parser("market", help="PPO on a market, judged by walk-forward evaluation (document 002)")
    _configured(market, None, "named preset (planted, null)")
    market.set_defaults(command=("troupe.cli.market", "train_market"))

    trading = systems.add_parser("trading", help="specialists and a meta-controller, in three phases (document 002)")
    trading.add_argument("--phase", type=int, choices=(1, 2, 3), default=None, help="this phase alone (default: all)")
    trading.add_argument("--timesteps", type=int, default=None, metavar="N", help="of that phase; in phase 1 for each")
    trading.add_argument("--resume", action="store_true", help="continue the folder's run; an error without one")
    trading.add_argument("--output-dir", default=None, metavar="DIR", help="run folder (default: runs/trading)")
    trading.add_argument("--log-dir", default=None, metavar="DIR", help="logs per phase (default: logs in the run)")
    trading.add_argument("--device", choices=("cpu", "cuda"), default=None, help="of phase 3 (default: cpu)")
    _configured(trading, None, "named preset (documented, tenth, rotation, planted, null)")
    trading.set_defaults(command=("troupe.cli.trading", "train_trading"))

    evaluate = commands.add_parser("evaluate", help="score a trained team on held-out tasks")
    evaluate.add_argument(
        "--checkpoint", required=True, metavar="RUN", help="run, RUN/start, checkpoint or registry folder"
    )
    _team(evaluate)
    evaluate.add_argument("--data", default=None, help="`math` or a prepared data set (default: the run's own)")
    evaluate.add_argument("--data-root", default=None, help="folder of prepared data sets (default: the run's)")
    evaluate.add_argument("--split", default="held_out", help="split of a prepared data set (default: held_out)")
    evaluate.add_argument("--size", type=int, default=256, help="tasks at most (default: 256)")
    evaluate.add_argument("-n", type=int, default=4, help="attempts per task, for pass@k (default: 4)")
    evaluate.add_argument("--temperature", type=float, default=1.0)
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--json", default=None, metavar="FILE", help="also write the report there")
    evaluate.set_defaults(command=("troupe.cli.evaluate", "evaluate"))

    traded = commands.add_parser("evaluate trading", help="what a run of `train trading` trades, measured again")
    traded.add_argument("--run", default="runs/trading", metavar="DIR", help="run folder (default: runs/trading)")
    traded.add_argument("--episodes", type=int, default=None, metavar="N", help="at most (default: those of the run)")
    traded.add_argument(
        "--stretch", choices=("validation", "test"), default="test",
        help="what the gates were judged by, or what nothing has seen (default)",
    )  # fmt: skip
    traded.add_argument("--json", default=None, metavar="FILE", help="also write the metrics there")
    traded.set_defaults(command=("troupe.cli.trading", "evaluate_trading"))

    ask = commands.add_parser("ask", help="let a trained team work on one problem")
    ask.add_argument("run", help="run, checkpoint or registry folder")
    ask.add_argument("problem", help='such as "3x + 5 = 20"')
    _team(ask)
    ask.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable words (default)")
    ask.add_argument("--seed", type=int, default=0)
    ask.set_defaults(command=("troupe.cli.evaluate", "ask"))

    play = commands.add_parser("play", help="play against a trained network, or see how it thinks")
    play.add_argument("run", help="run or checkpoint folder of `troupe train selfplay`")
    play.add_argument("--simulations", type=int, default=None, help="per move (default: those of the run's matches)")
    play.add_argument("--second", action="store_true", help="let the network begin")
    play.add_argument("--seed", type=int, default=0, help="of the dice, where a game has them")
    play.add_argument("--think", default=None, metavar="MOVES", help='show the search after "3 3 2", and stop')
    play.add_argument("--svg", default=None, metavar="FILE", help="with --think: also draw the tree there")
    play.set_defaults(command=("troupe.cli.selfplay", "play"))

    solve = commands.add_parser("solve", help="let a trained network solve a sudoku or a maze")
    solve.add_argument("run", help="run or checkpoint folder of `troupe train puzzles`")
    solve.add_argument("puzzle", nargs="+", help='such as "3... ..2. .1.. ...4", or the rows of a maze in .#SG')
    solve.set_defaults(command=("troupe.cli.puzzles", "solve"))

    export = commands.add_parser("export", help="write a team's policies as Hugging Face models, adapters merged")
    export.add_argument("run", help="run, checkpoint or registry folder")
    export.add_argument("folder", help="where to write")
    export.set_defaults(command=("troupe.cli.evaluate", "export"))

    data = commands.add_parser("data", help="prepare data sets")
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    prepare = actions.add_parser("prepare", help="read a public data set, split it by task, store it")
    prepare.add_argument(
        "name", help="2wiki, aime, deepcoder, deepresearch, deepscaler, gsm8k, hotpotqa, math, musique or swe"
    )
    prepare.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="local files (default: the Hugging Face hub; 2wiki, deepresearch and musique need DIR)",
    )
    prepare.add_argument("--root", default="data", help="where to store (default: data)")
    prepare.add_argument("--held-out", type=float, default=0.1, help="share of held-out tasks (default: 0.1)")
    prepare.add_argument("--seed", type=int, default=0)
    prepare.set_defaults(command=("troupe.cli.data", "prepare"))
    return root


def _team(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workflow", default=None, metavar="NAME", help="refuse the checkpoint of another team")


def _configured(parser: argparse.ArgumentParser, preset: str | None, presets: str) -> None:
    """What every system is configured by: files, a preset (`presets` is its help), overrides."""
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; may be repeated")
    parser.add_argument("--preset", default=preset, help=presets)
    parser.add_argument("--print-config", action="store_true", help="show the resolved config with origins, and stop")
    _overrides(parser)


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="config overrides, such as optim.lr=2e-5 (Hydra's grammar)"
    )
