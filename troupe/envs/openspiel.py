"""OpenSpiel's games as ours, and ours as OpenSpiel's (Lanctot et al. 2019, arXiv:1908.09453; extra `games`).

game = from_openspiel("hex(board_size=5)")          # searched and trained like any Game
pyspiel_game = to_openspiel(TicTacToe(), "ours")    # played by OpenSpiel's bots, also as load_game("ours")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from troupe.errors import ConfigError, DataError, MissingExtra, did_you_mean
from troupe.protocols import Game

__all__ = ["OpenSpielGame", "from_openspiel", "to_openspiel"]


def from_openspiel(game: Any) -> OpenSpielGame:
    """A `Game` over a pyspiel game, or over what `pyspiel.load_game` makes of a name such as "breakthrough".

    Raises ConfigError for an unknown name or parameter, and for a game that is not sequential, of perfect information,
    zero-sum, for two players, and free of hidden chance; MissingExtra without open_spiel.
    """
    pyspiel = _pyspiel("from_openspiel")
    if isinstance(game, str):
        name = game.partition("(")[0]
        if name not in pyspiel.registered_names():
            raise ConfigError(f"OpenSpiel has no game {name!r}{did_you_mean(name, pyspiel.registered_names())}")
        try:
            game = pyspiel.load_game(game)
        except pyspiel.SpielError as error:
            raise ConfigError(f"OpenSpiel cannot load {game!r}: {str(error).splitlines()[0]}") from error
    return OpenSpielGame(game)


class OpenSpielGame:
    """A `Game` whose states are pyspiel states. They are cloned before a move and never changed.

    `observe` is pyspiel's observation tensor for the player to move, followed by who that is: many games draw x and o
    and leave it to the reader to count whose turn it is, which a convolution cannot. A tensor of three axes gets one
    more plane, filled with the player; one of any other shape is flattened and gets one more number.
    """

    players = 2

    def __init__(self, game: Any) -> None:
        pyspiel = _pyspiel("OpenSpielGame")
        _check(pyspiel, game)
        kind = game.get_type()
        self.spiel = game
        self.actions: int = game.num_distinct_actions()
        self._pays_on_the_way = kind.reward_model == pyspiel.GameType.RewardModel.REWARDS
        self._shape = tuple(game.observation_tensor_shape())
        planes = len(self._shape) == 3
        self.observation_shape: tuple[int, ...] = (
            (self._shape[0] + 1, *self._shape[1:]) if planes else (int(np.prod(self._shape)) + 1,)
        )
        if kind.chance_mode != pyspiel.GameType.ChanceMode.DETERMINISTIC:
            self.chance = _chance  # a game without chance has no such method, and searches ask for none

    def initial(self) -> Any:
        return self.spiel.new_initial_state()

    def legal(self, state: Any) -> Sequence[int]:
        """Ascending; empty where chance decides."""
        return [] if state.is_chance_node() else state.legal_actions()

    def step(self, state: Any, action: int) -> tuple[Any, float, bool, int]:
        """`action` is an outcome where chance decides; the reward is then that of who moved before. Raises pyspiel's
        SpielError for a move that its game refuses."""
        mover, following = self.to_play(state), state.child(int(action))
        reward = following.returns()[mover]
        if self._pays_on_the_way:
            reward -= state.returns()[mover]
        return following, float(reward), following.is_terminal(), self.to_play(following)

    def to_play(self, state: Any) -> int:
        """The player to move; where chance decides or the game has ended, the one who moved last."""
        player = state.current_player()
        if player >= 0:
            return player
        return next((move.player for move in reversed(state.full_history()) if move.player >= 0), 0)

    def observe(self, state: Any) -> np.ndarray:
        """float32 `observation_shape`."""
        player = self.to_play(state)
        seen = np.array(state.observation_tensor(player), np.float32)
        who = np.full(int(np.prod(self.observation_shape)) - len(seen), player, np.float32)
        return np.concatenate([seen, who]).reshape(self.observation_shape)

    def key(self, state: Any) -> tuple[bytes, tuple[int, ...]]:
        """What an evaluator sees: the observation with the player to move, and the legal actions."""
        return self.observe(state).tobytes(), tuple(self.legal(state))

    def render(self, state: Any) -> str:
        return str(state)


def to_openspiel(game: Game, name: str, *, max_game_length: int = 1000, max_chance_outcomes: int = 64) -> Any:
    """A pyspiel game that plays `game`, registered with OpenSpiel as `name`.

    For two players and fixed actions. OpenSpiel's searches want all pay at the end, so a reward before it is a
    DataError, as are games or chance longer than the two limits. The i-th pair of `game.chance(state)` is outcome i.
    The observation tensor is `game.observe(state)`, the view of the player to move, for either player.

    Raises ConfigError for other games and for a name that OpenSpiel already knows; MissingExtra without open_spiel.
    """
    pyspiel = _pyspiel("to_openspiel")
    kind = type(game).__name__
    if game.players != 2 or game.actions is None:
        raise ConfigError(
            f"to_openspiel takes games for two players with fixed actions; {kind} has players={game.players} and "
            f"actions={game.actions}"
        )
    if name in pyspiel.registered_names():
        raise ConfigError(f"OpenSpiel already has a game {name!r}: give {kind} another name")
    game_class = _game_class(game, name, max_game_length, max_chance_outcomes)
    pyspiel.register_game(game_class.kind, game_class)
    return game_class()


def _pyspiel(why: str) -> Any:
    try:
        import pyspiel
    except ImportError as error:
        raise MissingExtra("open_spiel", "games", why) from error
    return pyspiel


def _check(pyspiel: Any, game: Any) -> None:
    kind, wanted = game.get_type(), pyspiel.GameType
    faults = [
        (kind.dynamics != wanted.Dynamics.SEQUENTIAL, "its players move at the same time"),
        (kind.information != wanted.Information.PERFECT_INFORMATION, "it hides something from a player"),
        (kind.utility != wanted.Utility.ZERO_SUM, "it is not zero-sum"),
        (game.num_players() != 2, f"it is for {game.num_players()} players"),
        (kind.chance_mode == wanted.ChanceMode.SAMPLED_STOCHASTIC, "its chance cannot be listed"),
        (not kind.provides_observation_tensor, "it has no observation tensor"),
    ]
    found = [why for wrong, why in faults if wrong]
    if found:
        raise ConfigError(
            f"OpenSpiel's {kind.short_name} cannot be played here, because {' and '.join(found)}: "
            "choose a sequential zero-sum game of perfect information for two"
        )


def _chance(state: Any) -> Sequence[tuple[int, float]]:
    return state.chance_outcomes() if state.is_chance_node() else ()


def _game_class(game: Game, name: str, max_game_length: int, max_chance_outcomes: int) -> Any:
    """A subclass of pyspiel.Game. Our game stays in this closure: a state's attributes are copied with every clone."""
    import pyspiel

    rolls = hasattr(game, "chance")
    types = pyspiel.GameType
    kind = types(
        short_name=name,
        long_name=f"{type(game).__name__} of Troupe",
        dynamics=types.Dynamics.SEQUENTIAL,
        chance_mode=types.ChanceMode.EXPLICIT_STOCHASTIC if rolls else types.ChanceMode.DETERMINISTIC,
        information=types.Information.PERFECT_INFORMATION,
        utility=types.Utility.ZERO_SUM,
        reward_model=types.RewardModel.TERMINAL,
        max_num_players=2,
        min_num_players=2,
        provides_information_state_string=True,
        provides_information_state_tensor=False,
        provides_observation_string=True,
        provides_observation_tensor=True,
        parameter_specification={},
    )
    info = pyspiel.GameInfo(
        num_distinct_actions=game.actions,
        max_chance_outcomes=max_chance_outcomes if rolls else 0,
        num_players=2,
        min_utility=-1.0,
        max_utility=1.0,
        utility_sum=0.0,
        max_game_length=max_game_length,
    )
    state_class = _state_class(game, max_game_length, max_chance_outcomes)

    class TroupeGame(pyspiel.Game):
        def __init__(self, params: Any = None) -> None:
            super().__init__(kind, info, params or {})

        def new_initial_state(self, state: Any = None) -> Any:
            if state is not None:
                raise DataError(f"{name}: states are reached by moves only; apply them to new_initial_state()")
            return state_class(self)

        def make_py_observer(self, iig_obs_type: Any = None, params: Any = None) -> Any:
            from open_spiel.python.observation import IIGObserverForPublicInfoGame

            if iig_obs_type is None or (iig_obs_type.public_info and not iig_obs_type.perfect_recall):
                return _Observer(game, params)
            return IIGObserverForPublicInfoGame(iig_obs_type, params)

    TroupeGame.kind = kind
    return TroupeGame


def _state_class(game: Game, max_game_length: int, max_chance_outcomes: int) -> Any:
    import pyspiel

    class TroupeState(pyspiel.State):
        def __init__(self, spiel: Any) -> None:
            super().__init__(spiel)
            self.state, self.player, self.done, self.paid, self.moves = game.initial(), 0, False, 0.0, 0

        def _outcomes(self) -> Sequence[tuple[Any, float]]:
            return game.chance(self.state) if hasattr(game, "chance") and not self.done else ()

        def current_player(self) -> Any:
            if self.done:
                return pyspiel.PlayerId.TERMINAL
            return pyspiel.PlayerId.CHANCE if self._outcomes() else self.player

        def _legal_actions(self, player: int) -> list[int]:
            return sorted(int(action) for action in game.legal(self.state))

        def chance_outcomes(self) -> list[tuple[int, float]]:
            outcomes = self._outcomes()
            if len(outcomes) > max_chance_outcomes:
                raise DataError(
                    f"chance has {len(outcomes)} outcomes: set max_chance_outcomes of to_openspiel to as many"
                )
            return [(i, probability) for i, (_, probability) in enumerate(outcomes)]

        def _apply_action(self, action: int) -> None:
            outcomes, mover = self._outcomes(), self.player
            if not outcomes:
                self.moves += 1
                if self.moves > max_game_length:
                    raise DataError(
                        f"a game took more than {max_game_length} moves: raise max_game_length of to_openspiel"
                    )
            chosen = outcomes[action][0] if outcomes else action
            self.state, reward, self.done, self.player = game.step(self.state, chosen)
            if reward and not self.done:
                raise DataError(
                    f"{type(game).__name__} paid {reward} before its end: to_openspiel takes games that pay last"
                )
            self.paid = float(reward) if mover == 0 else -float(reward)

        def _action_to_string(self, player: int, action: int) -> str:
            return str(self._outcomes()[action][0] if player == pyspiel.PlayerId.CHANCE else action)

        def is_terminal(self) -> bool:
            return self.done

        def returns(self) -> list[float]:
            return [self.paid, 0.0 - self.paid]

        def __str__(self) -> str:
            return _text(game, self.state)

    return TroupeState


class _Observer:
    """OpenSpiel's observer interface: a flat tensor, and a dict of views of it."""

    def __init__(self, game: Game, params: Any) -> None:
        if params:
            raise ConfigError(f"observers of {type(game).__name__} take no parameters, found {params}")
        self.game = game
        self.tensor = np.zeros(int(np.prod(game.observation_shape)), np.float32)
        self.dict = {"observation": self.tensor.reshape(game.observation_shape)}

    def set_from(self, state: Any, player: int) -> None:
        self.dict["observation"][...] = self.game.observe(state.state)

    def string_from(self, state: Any, player: int) -> str:
        return _text(self.game, state.state)


def _text(game: Game, state: Any) -> str:
    render = getattr(game, "render", None)
    return render(state) if render else str(state)
