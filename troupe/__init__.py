"""Troupe trains teams of agents.

Every public name can be imported from here; its module is loaded when the name is first used (PEP 562), so that
`import troupe` costs milliseconds. To add a name: one line in `HOMES` and one import under `TYPE_CHECKING`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two lists
    from troupe.agents import Agent as Agent
    from troupe.agents import AgentSpec as AgentSpec
    from troupe.agents import PromptTooLong as PromptTooLong
    from troupe.agents import Reply as Reply
    from troupe.batch import Batch as Batch
    from troupe.batch import minibatches as minibatches
    from troupe.batch import pack as pack
    from troupe.engines.evaluator import NetworkEvaluator as NetworkEvaluator
    from troupe.engines.evaluator import OracleEvaluator as OracleEvaluator
    from troupe.engines.evaluator import RolloutEvaluator as RolloutEvaluator
    from troupe.engines.evaluator import UniformEvaluator as UniformEvaluator
    from troupe.engines.local import LocalEngine as LocalEngine
    from troupe.engines.proposing import LanguageProposer as LanguageProposer
    from troupe.engines.proposing import ToldGame as ToldGame
    from troupe.engines.scripted import ScriptedEngine as ScriptedEngine
    from troupe.envs import make_batch_game as make_batch_game
    from troupe.envs import make_game as make_game
    from troupe.envs.market.bars import Bars as Bars
    from troupe.envs.market.build import load_market as load_market
    from troupe.envs.market.build import market_of as market_of
    from troupe.envs.market.config import MarketConfig as MarketConfig
    from troupe.envs.market.config import MarketRules as MarketRules
    from troupe.envs.market.core import MarketCore as MarketCore
    from troupe.envs.market.faces import JointTrainingEnv as JointTrainingEnv
    from troupe.envs.market.faces import MarketEnv as MarketEnv
    from troupe.envs.market.faces import MarketVectorEnv as MarketVectorEnv
    from troupe.envs.market.faces import MetaControllerTrainingEnv as MetaControllerTrainingEnv
    from troupe.envs.market.faces import SpecialistEnv as SpecialistEnv
    from troupe.envs.market.faces import register_market as register_market
    from troupe.envs.market.instruments import Instrument as Instrument
    from troupe.envs.market.instruments import instrument as instrument
    from troupe.envs.market.loading import BarFormat as BarFormat
    from troupe.envs.market.loading import ExtraSeries as ExtraSeries
    from troupe.envs.market.loading import load_bars as load_bars
    from troupe.envs.market.mixture import mixed_market as mixed_market
    from troupe.envs.market.planted import null_market as null_market
    from troupe.envs.market.planted import planted_market as planted_market
    from troupe.envs.market.planted import planted_optimum as planted_optimum
    from troupe.envs.market.regimes import detect_market_regime as detect_market_regime
    from troupe.envs.market.regimes import regime_series as regime_series
    from troupe.envs.market.resampling import resample as resample
    from troupe.envs.market.rewards import RewardRules as RewardRules
    from troupe.envs.market.rotation import RotationMarket as RotationMarket
    from troupe.envs.market.rotation import rotation_bound as rotation_bound
    from troupe.envs.market.rotation import rotation_market as rotation_market
    from troupe.envs.market.simulator import MarketModel as MarketModel
    from troupe.envs.market.simulator import scenario as scenario
    from troupe.envs.market.simulator import simulate as simulate
    from troupe.envs.market.team import Team as Team
    from troupe.envs.market.team import TeamVector as TeamVector
    from troupe.envs.market.vector import MarketVector as MarketVector
    from troupe.envs.openspiel import from_openspiel as from_openspiel
    from troupe.envs.openspiel import to_openspiel as to_openspiel
    from troupe.envs.pettingzoo import from_pettingzoo as from_pettingzoo
    from troupe.envs.pettingzoo import to_pettingzoo as to_pettingzoo
    from troupe.episode import Action as Action
    from troupe.episode import Episode as Episode
    from troupe.episode import FinishReason as FinishReason
    from troupe.episode import MCTSTrace as MCTSTrace
    from troupe.episode import Message as Message
    from troupe.episode import Outcome as Outcome
    from troupe.episode import Problem as Problem
    from troupe.episode import Sampling as Sampling
    from troupe.episode import State as State
    from troupe.episode import Step as Step
    from troupe.episode import StopReason as StopReason
    from troupe.episode import Task as Task
    from troupe.episode import Tokens as Tokens
    from troupe.episode import Trajectory as Trajectory
    from troupe.episode import message as message
    from troupe.errors import ConfigError as ConfigError
    from troupe.errors import CreditError as CreditError
    from troupe.errors import DataError as DataError
    from troupe.errors import EpisodeError as EpisodeError
    from troupe.errors import MissingExtra as MissingExtra
    from troupe.errors import StorageError as StorageError
    from troupe.errors import TrainingError as TrainingError
    from troupe.errors import TroupeError as TroupeError
    from troupe.errors import UserError as UserError
    from troupe.handles import EpisodeHandle as EpisodeHandle
    from troupe.handles import StepHandle as StepHandle
    from troupe.handles import TrajectoryHandle as TrajectoryHandle
    from troupe.maths.advantages import dr_grpo as dr_grpo
    from troupe.maths.advantages import gae as gae
    from troupe.maths.advantages import grpo as grpo
    from troupe.maths.advantages import rae as rae
    from troupe.maths.advantages import reinforce_pp as reinforce_pp
    from troupe.maths.advantages import reinforce_pp_baseline as reinforce_pp_baseline
    from troupe.maths.advantages import rloo as rloo
    from troupe.maths.edge import edge_test as edge_test
    from troupe.maths.finance import sharpe as sharpe
    from troupe.maths.gradients import pcgrad as pcgrad
    from troupe.maths.losses import cispo as cispo
    from troupe.maths.losses import gspo as gspo
    from troupe.maths.losses import ppo_clip as ppo_clip
    from troupe.maths.losses import token_nll as token_nll
    from troupe.maths.losses import value_loss as value_loss
    from troupe.maths.ratings import Pairs as Pairs
    from troupe.maths.ratings import Score as Score
    from troupe.maths.ratings import Sprt as Sprt
    from troupe.maths.ratings import elo_of as elo_of
    from troupe.maths.ratings import elo_ratings as elo_ratings
    from troupe.maths.sharpe_tests import deflated_sharpe as deflated_sharpe
    from troupe.maths.statistics import Interval as Interval
    from troupe.maths.statistics import bootstrap_interval as bootstrap_interval
    from troupe.maths.statistics import mean_interval as mean_interval
    from troupe.maths.statistics import paired_difference as paired_difference
    from troupe.maths.statistics import pass_at_k as pass_at_k
    from troupe.maths.statistics import wilson as wilson
    from troupe.models.actor_critic import ActorCritic as ActorCritic
    from troupe.models.config import ActorCriticConfig as ActorCriticConfig
    from troupe.models.config import CriticConfig as CriticConfig
    from troupe.models.config import HRMConfig as HRMConfig
    from troupe.models.config import HRMNetConfig as HRMNetConfig
    from troupe.models.config import LoraSettings as LoraSettings
    from troupe.models.config import ModelConfig as ModelConfig
    from troupe.models.config import PolicyValueConfig as PolicyValueConfig
    from troupe.models.config import TeamConfig as TeamConfig
    from troupe.models.config import TinyConfig as TinyConfig
    from troupe.models.config import TokenNetConfig as TokenNetConfig
    from troupe.models.config import TRMConfig as TRMConfig
    from troupe.models.config import TRMNetConfig as TRMNetConfig
    from troupe.models.hrm import HRM as HRM
    from troupe.models.language import LanguageModel as LanguageModel
    from troupe.models.language import Policy as Policy
    from troupe.models.language import ValueModel as ValueModel
    from troupe.models.language import load_language_model as load_language_model
    from troupe.models.policy_value import PolicyValueNet as PolicyValueNet
    from troupe.models.policy_value import policy_value_net as policy_value_net
    from troupe.models.recursive_agents import create_hrm_agent as create_hrm_agent
    from troupe.models.recursive_agents import create_trm_agent as create_trm_agent
    from troupe.models.team import TeamActorCritic as TeamActorCritic
    from troupe.models.token_net import PolicyAndValue as PolicyAndValue
    from troupe.models.token_net import TokenNet as TokenNet
    from troupe.models.token_net import token_net as token_net
    from troupe.models.trm import TRM as TRM
    from troupe.monitoring.selfplay_report import write_selfplay_report as write_selfplay_report
    from troupe.monitoring.tree_picture import tree_svg as tree_svg
    from troupe.monitoring.tree_picture import tree_text as tree_text
    from troupe.protocols import BatchEnv as BatchEnv
    from troupe.protocols import BatchGame as BatchGame
    from troupe.protocols import ChatFormat as ChatFormat
    from troupe.protocols import Engine as Engine
    from troupe.protocols import Evaluator as Evaluator
    from troupe.protocols import Game as Game
    from troupe.protocols import Generation as Generation
    from troupe.protocols import GenerationRequest as GenerationRequest
    from troupe.protocols import Positions as Positions
    from troupe.protocols import Proposal as Proposal
    from troupe.protocols import Proposer as Proposer
    from troupe.protocols import Reward as Reward
    from troupe.protocols import RewardFn as RewardFn
    from troupe.protocols import Symmetry as Symmetry
    from troupe.protocols import TaskGame as TaskGame
    from troupe.protocols import TaskGenerator as TaskGenerator
    from troupe.protocols import Tool as Tool
    from troupe.protocols import Workflow as Workflow
    from troupe.rewards.answers import answers_equal as answers_equal
    from troupe.rewards.answers import extract_answer as extract_answer
    from troupe.rewards.math import math_reward_fn as math_reward_fn
    from troupe.rewards.swe import swe_reward_fn as swe_reward_fn
    from troupe.sandbox import Limits as Limits
    from troupe.sandbox import Sandbox as Sandbox
    from troupe.sandbox.patches import apply_patch as apply_patch
    from troupe.sandbox.patches import make_patch as make_patch
    from troupe.search.asynchronous import Ticker as Ticker
    from troupe.search.compiled import CompiledGame as CompiledGame
    from troupe.search.compiled import compiled_game as compiled_game
    from troupe.search.config import SearchConfig as SearchConfig
    from troupe.search.minimax import MinimaxPlayer as MinimaxPlayer
    from troupe.search.picture import TreeNode as TreeNode
    from troupe.search.picture import picture_of as picture_of
    from troupe.search.search import Search as Search
    from troupe.stores.checkpoints import Checkpoint as Checkpoint
    from troupe.stores.checkpoints import CheckpointStore as CheckpointStore
    from troupe.stores.episodes import EpisodeStore as EpisodeStore
    from troupe.stores.registry import Lineage as Lineage
    from troupe.stores.registry import ModelRegistry as ModelRegistry
    from troupe.stores.tracking import Tracker as Tracker
    from troupe.systems.env_rl.config import EnvRLConfig as EnvRLConfig
    from troupe.systems.env_rl.trainer import EnvTrainer as EnvTrainer
    from troupe.systems.puzzles.arc import read_arc as read_arc
    from troupe.systems.puzzles.config import PuzzleConfig as PuzzleConfig
    from troupe.systems.puzzles.solving import load_puzzle_solver as load_puzzle_solver
    from troupe.systems.puzzles.trainer import PuzzleResult as PuzzleResult
    from troupe.systems.puzzles.trainer import PuzzleTrainer as PuzzleTrainer
    from troupe.systems.selfplay.config import SelfPlayConfig as SelfPlayConfig
    from troupe.systems.selfplay.deploy import load_player as load_player
    from troupe.systems.selfplay.documented import SelfPlayTrainer as SelfPlayTrainer
    from troupe.systems.selfplay.episodes import SelfPlayEpisode as SelfPlayEpisode
    from troupe.systems.selfplay.episodes import TrainingExample as TrainingExample
    from troupe.systems.selfplay.extraction import SelfPlayDataset as SelfPlayDataset
    from troupe.systems.selfplay.extraction import TrainingDataExtractor as TrainingDataExtractor
    from troupe.systems.selfplay.games import GameTaskGenerator as GameTaskGenerator
    from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator as SelfPlayEpisodeGenerator
    from troupe.systems.selfplay.search_tasks import MCTSSearchTaskGenerator as MCTSSearchTaskGenerator
    from troupe.systems.selfplay.task_worlds import TaskWorld as TaskWorld
    from troupe.systems.selfplay.trainer import GameTrainer as GameTrainer
    from troupe.systems.selfplay.verifiable.config import VerifiableConfig as VerifiableConfig
    from troupe.systems.selfplay.verifiable.deploy import TaskSolver as TaskSolver
    from troupe.systems.selfplay.verifiable.deploy import load_task_solver as load_task_solver
    from troupe.systems.selfplay.verifiable.deploy import write_chains as write_chains
    from troupe.systems.selfplay.verifiable.in_words import solve_in_words as solve_in_words
    from troupe.systems.selfplay.verifiable.results import TaskResult as TaskResult
    from troupe.systems.selfplay.verifiable.trainer import TaskTrainer as TaskTrainer
    from troupe.systems.trading.assessment import assess as assess
    from troupe.systems.trading.backtest import backtest as backtest
    from troupe.systems.trading.checkpointing import ModelCheckpointingSystem as ModelCheckpointingSystem
    from troupe.systems.trading.config import WalkForwardConfig as WalkForwardConfig
    from troupe.systems.trading.coordination import GradientCoordinationSystem as GradientCoordinationSystem
    from troupe.systems.trading.curriculum import AdvancedCurriculumLearning as AdvancedCurriculumLearning
    from troupe.systems.trading.curriculum import CurriculumConfig as CurriculumConfig
    from troupe.systems.trading.curriculum import TrainingScenario as TrainingScenario
    from troupe.systems.trading.documented import read_agents_yaml as read_agents_yaml
    from troupe.systems.trading.hierarchy import HierarchyStrategy as HierarchyStrategy
    from troupe.systems.trading.hierarchy_config import TradingConfig as TradingConfig
    from troupe.systems.trading.hierarchy_record import write_hierarchy_evaluation as write_hierarchy_evaluation
    from troupe.systems.trading.hierarchy_walkforward import HierarchyWalkForward as HierarchyWalkForward
    from troupe.systems.trading.hub import CommunicationHub as CommunicationHub
    from troupe.systems.trading.messages import AlertMessage as AlertMessage
    from troupe.systems.trading.messages import AllocationMessage as AllocationMessage
    from troupe.systems.trading.messages import CoordinationSignal as CoordinationSignal
    from troupe.systems.trading.messages import PerformanceReport as PerformanceReport
    from troupe.systems.trading.online import OnlineConfig as OnlineConfig
    from troupe.systems.trading.online import OnlineLearner as OnlineLearner
    from troupe.systems.trading.pareto import pareto_front as pareto_front
    from troupe.systems.trading.pareto import pareto_sweep as pareto_sweep
    from troupe.systems.trading.phase1 import Phase1Trainer as Phase1Trainer
    from troupe.systems.trading.phase2 import Phase2Trainer as Phase2Trainer
    from troupe.systems.trading.phase3 import Phase3JointTrainer as Phase3JointTrainer
    from troupe.systems.trading.pipeline import HierarchyTrainer as HierarchyTrainer
    from troupe.systems.trading.pipeline import TradingResult as TradingResult
    from troupe.systems.trading.walkforward import WalkForward as WalkForward
    from troupe.systems.workflow_rl.config import WorkflowRLConfig as WorkflowRLConfig
    from troupe.systems.workflow_rl.trainer import AgentTrainer as AgentTrainer
    from troupe.tasks.bugs import BugGenerator as BugGenerator
    from troupe.tasks.competitions import prepare_aime as prepare_aime
    from troupe.tasks.competitions import prepare_deepscaler as prepare_deepscaler
    from troupe.tasks.competitions import prepare_math as prepare_math
    from troupe.tasks.countdown import read_game24 as read_game24
    from troupe.tasks.datasets import DatasetRegistry as DatasetRegistry
    from troupe.tasks.datasets import prepare_gsm8k as prepare_gsm8k
    from troupe.tasks.generator import BaseTaskGenerator as BaseTaskGenerator
    from troupe.tasks.grids import read_mapf_grids as read_mapf_grids
    from troupe.tasks.gsm8k import read_gsm8k as read_gsm8k
    from troupe.tasks.logic_data import read_logical_deduction as read_logical_deduction
    from troupe.tasks.logic_data import read_prontoqa as read_prontoqa
    from troupe.tasks.logic_data import read_proofwriter as read_proofwriter
    from troupe.tasks.math import MathProblemGenerator as MathProblemGenerator
    from troupe.tasks.planbench import read_planbench as read_planbench
    from troupe.tasks.programs import CodeGenerationTaskGenerator as CodeGenerationTaskGenerator
    from troupe.tasks.quixbugs import read_quixbugs as read_quixbugs
    from troupe.tasks.reasoning import MultiStepReasoningGenerator as MultiStepReasoningGenerator
    from troupe.tasks.search_problems import SearchProblemGenerator as SearchProblemGenerator
    from troupe.tasks.swe import prepare_swe as prepare_swe
    from troupe.tasks.swebench import read_r2e as read_r2e
    from troupe.tasks.swebench import read_swebench as read_swebench
    from troupe.tasks.swebench import with_checkout as with_checkout
    from troupe.testing import check_batch_game as check_batch_game
    from troupe.testing import check_game as check_game
    from troupe.testing import check_generator as check_generator
    from troupe.tools.calculator import Calculator as Calculator
    from troupe.tools.files import Workspace as Workspace
    from troupe.training.adam_atan2 import AdamATan2 as AdamATan2
    from troupe.training.collection import Collector as Collector
    from troupe.training.config import AlgorithmConfig as AlgorithmConfig
    from troupe.training.config import OptimConfig as OptimConfig
    from troupe.training.config import PPOConfig as PPOConfig
    from troupe.training.config import RolloutConfig as RolloutConfig
    from troupe.training.config import SftConfig as SftConfig
    from troupe.training.config import TrainerConfig as TrainerConfig
    from troupe.training.conversations import demonstrations as demonstrations
    from troupe.training.conversations import read_conversations as read_conversations
    from troupe.training.credit import credit_table as credit_table
    from troupe.training.evaluation import Decision as Decision
    from troupe.training.evaluation import Gate as Gate
    from troupe.training.evaluation import MatchGate as MatchGate
    from troupe.training.evaluation import Report as Report
    from troupe.training.learner import Learner as Learner
    from troupe.training.learner import OptimizerGroup as OptimizerGroup
    from troupe.training.ppo_run import PPORun as PPORun
    from troupe.training.replay import ReplayWindow as ReplayWindow
    from troupe.training.rollout import run_episodes as run_episodes
    from troupe.training.vector_envs import GymnasiumEnvs as GymnasiumEnvs
    from troupe.workflows.math_teacher import MathTeacher as MathTeacher
    from troupe.workflows.math_tool import MathToolWorkflow as MathToolWorkflow
    from troupe.workflows.single_agent import SingleAgentWorkflow as SingleAgentWorkflow
    from troupe.workflows.swe import SWEWorkflow as SWEWorkflow
    from troupe.workflows.swe_teacher import SWETeacher as SWETeacher

HOMES: dict[str, str] = {
    "Action": "troupe.episode",
    "ActorCritic": "troupe.models.actor_critic",
    "ActorCriticConfig": "troupe.models.config",
    "AdamATan2": "troupe.training.adam_atan2",
    "AdvancedCurriculumLearning": "troupe.systems.trading.curriculum",
    "Agent": "troupe.agents",
    "AgentSpec": "troupe.agents",
    "AgentTrainer": "troupe.systems.workflow_rl.trainer",
    "AlertMessage": "troupe.systems.trading.messages",
    "AlgorithmConfig": "troupe.training.config",
    "AllocationMessage": "troupe.systems.trading.messages",
    "BarFormat": "troupe.envs.market.loading",
    "Bars": "troupe.envs.market.bars",
    "BaseTaskGenerator": "troupe.tasks.generator",
    "Batch": "troupe.batch",
    "BatchEnv": "troupe.protocols",
    "BatchGame": "troupe.protocols",
    "BugGenerator": "troupe.tasks.bugs",
    "Calculator": "troupe.tools.calculator",
    "ChatFormat": "troupe.protocols",
    "Checkpoint": "troupe.stores.checkpoints",
    "CheckpointStore": "troupe.stores.checkpoints",
    "CodeGenerationTaskGenerator": "troupe.tasks.programs",
    "Collector": "troupe.training.collection",
    "CommunicationHub": "troupe.systems.trading.hub",
    "CompiledGame": "troupe.search.compiled",
    "ConfigError": "troupe.errors",
    "CoordinationSignal": "troupe.systems.trading.messages",
    "CreditError": "troupe.errors",
    "CriticConfig": "troupe.models.config",
    "CurriculumConfig": "troupe.systems.trading.curriculum",
    "DataError": "troupe.errors",
    "DatasetRegistry": "troupe.tasks.datasets",
    "Decision": "troupe.training.evaluation",
    "Engine": "troupe.protocols",
    "EnvRLConfig": "troupe.systems.env_rl.config",
    "EnvTrainer": "troupe.systems.env_rl.trainer",
    "Episode": "troupe.episode",
    "EpisodeError": "troupe.errors",
    "EpisodeHandle": "troupe.handles",
    "EpisodeStore": "troupe.stores.episodes",
    "Evaluator": "troupe.protocols",
    "ExtraSeries": "troupe.envs.market.loading",
    "FinishReason": "troupe.episode",
    "Game": "troupe.protocols",
    "GameTaskGenerator": "troupe.systems.selfplay.games",
    "GameTrainer": "troupe.systems.selfplay.trainer",
    "Gate": "troupe.training.evaluation",
    "Generation": "troupe.protocols",
    "GenerationRequest": "troupe.protocols",
    "GradientCoordinationSystem": "troupe.systems.trading.coordination",
    "GymnasiumEnvs": "troupe.training.vector_envs",
    "HRM": "troupe.models.hrm",
    "HRMConfig": "troupe.models.config",
    "HRMNetConfig": "troupe.models.config",
    "HierarchyStrategy": "troupe.systems.trading.hierarchy",
    "HierarchyTrainer": "troupe.systems.trading.pipeline",
    "HierarchyWalkForward": "troupe.systems.trading.hierarchy_walkforward",
    "Instrument": "troupe.envs.market.instruments",
    "Interval": "troupe.maths.statistics",
    "JointTrainingEnv": "troupe.envs.market.faces",
    "LanguageModel": "troupe.models.language",
    "LanguageProposer": "troupe.engines.proposing",
    "Learner": "troupe.training.learner",
    "Limits": "troupe.sandbox",
    "Lineage": "troupe.stores.registry",
    "LocalEngine": "troupe.engines.local",
    "LoraSettings": "troupe.models.config",
    "MCTSSearchTaskGenerator": "troupe.systems.selfplay.search_tasks",
    "MCTSTrace": "troupe.episode",
    "MarketConfig": "troupe.envs.market.config",
    "MarketCore": "troupe.envs.market.core",
    "MarketEnv": "troupe.envs.market.faces",
    "MarketModel": "troupe.envs.market.simulator",
    "MarketRules": "troupe.envs.market.config",
    "MarketVector": "troupe.envs.market.vector",
    "MarketVectorEnv": "troupe.envs.market.faces",
    "MatchGate": "troupe.training.evaluation",
    "MathProblemGenerator": "troupe.tasks.math",
    "MathTeacher": "troupe.workflows.math_teacher",
    "MathToolWorkflow": "troupe.workflows.math_tool",
    "Message": "troupe.episode",
    "MetaControllerTrainingEnv": "troupe.envs.market.faces",
    "MinimaxPlayer": "troupe.search.minimax",
    "MissingExtra": "troupe.errors",
    "ModelCheckpointingSystem": "troupe.systems.trading.checkpointing",
    "ModelConfig": "troupe.models.config",
    "ModelRegistry": "troupe.stores.registry",
    "MultiStepReasoningGenerator": "troupe.tasks.reasoning",
    "NetworkEvaluator": "troupe.engines.evaluator",
    "OnlineConfig": "troupe.systems.trading.online",
    "OnlineLearner": "troupe.systems.trading.online",
    "OptimConfig": "troupe.training.config",
    "OptimizerGroup": "troupe.training.learner",
    "OracleEvaluator": "troupe.engines.evaluator",
    "Outcome": "troupe.episode",
    "PPOConfig": "troupe.training.config",
    "PPORun": "troupe.training.ppo_run",
    "Pairs": "troupe.maths.ratings",
    "PerformanceReport": "troupe.systems.trading.messages",
    "Phase1Trainer": "troupe.systems.trading.phase1",
    "Phase2Trainer": "troupe.systems.trading.phase2",
    "Phase3JointTrainer": "troupe.systems.trading.phase3",
    "Policy": "troupe.models.language",
    "PolicyAndValue": "troupe.models.token_net",
    "PolicyValueConfig": "troupe.models.config",
    "PolicyValueNet": "troupe.models.policy_value",
    "Positions": "troupe.protocols",
    "Problem": "troupe.episode",
    "PromptTooLong": "troupe.agents",
    "Proposal": "troupe.protocols",
    "Proposer": "troupe.protocols",
    "PuzzleConfig": "troupe.systems.puzzles.config",
    "PuzzleResult": "troupe.systems.puzzles.trainer",
    "PuzzleTrainer": "troupe.systems.puzzles.trainer",
    "ReplayWindow": "troupe.training.replay",
    "Reply": "troupe.agents",
    "Report": "troupe.training.evaluation",
    "Reward": "troupe.protocols",
    "RewardFn": "troupe.protocols",
    "RewardRules": "troupe.envs.market.rewards",
    "RolloutConfig": "troupe.training.config",
    "RolloutEvaluator": "troupe.engines.evaluator",
    "RotationMarket": "troupe.envs.market.rotation",
    "SWETeacher": "troupe.workflows.swe_teacher",
    "SWEWorkflow": "troupe.workflows.swe",
    "Sampling": "troupe.episode",
    "Sandbox": "troupe.sandbox",
    "Score": "troupe.maths.ratings",
    "ScriptedEngine": "troupe.engines.scripted",
    "Search": "troupe.search.search",
    "SearchConfig": "troupe.search.config",
    "SearchProblemGenerator": "troupe.tasks.search_problems",
    "SelfPlayConfig": "troupe.systems.selfplay.config",
    "SelfPlayDataset": "troupe.systems.selfplay.extraction",
    "SelfPlayEpisode": "troupe.systems.selfplay.episodes",
    "SelfPlayEpisodeGenerator": "troupe.systems.selfplay.generator",
    "SelfPlayTrainer": "troupe.systems.selfplay.documented",
    "SftConfig": "troupe.training.config",
    "SingleAgentWorkflow": "troupe.workflows.single_agent",
    "SpecialistEnv": "troupe.envs.market.faces",
    "Sprt": "troupe.maths.ratings",
    "State": "troupe.episode",
    "Step": "troupe.episode",
    "StepHandle": "troupe.handles",
    "StopReason": "troupe.episode",
    "StorageError": "troupe.errors",
    "Symmetry": "troupe.protocols",
    "TRM": "troupe.models.trm",
    "TRMConfig": "troupe.models.config",
    "TRMNetConfig": "troupe.models.config",
    "Task": "troupe.episode",
    "TaskGame": "troupe.protocols",
    "TaskGenerator": "troupe.protocols",
    "TaskResult": "troupe.systems.selfplay.verifiable.results",
    "TaskSolver": "troupe.systems.selfplay.verifiable.deploy",
    "TaskTrainer": "troupe.systems.selfplay.verifiable.trainer",
    "TaskWorld": "troupe.systems.selfplay.task_worlds",
    "Team": "troupe.envs.market.team",
    "TeamActorCritic": "troupe.models.team",
    "TeamConfig": "troupe.models.config",
    "TeamVector": "troupe.envs.market.team",
    "Ticker": "troupe.search.asynchronous",
    "TinyConfig": "troupe.models.config",
    "TokenNet": "troupe.models.token_net",
    "TokenNetConfig": "troupe.models.config",
    "Tokens": "troupe.episode",
    "ToldGame": "troupe.engines.proposing",
    "Tool": "troupe.protocols",
    "Tracker": "troupe.stores.tracking",
    "TradingConfig": "troupe.systems.trading.hierarchy_config",
    "TradingResult": "troupe.systems.trading.pipeline",
    "TrainerConfig": "troupe.training.config",
    "TrainingDataExtractor": "troupe.systems.selfplay.extraction",
    "TrainingError": "troupe.errors",
    "TrainingExample": "troupe.systems.selfplay.episodes",
    "TrainingScenario": "troupe.systems.trading.curriculum",
    "Trajectory": "troupe.episode",
    "TrajectoryHandle": "troupe.handles",
    "TreeNode": "troupe.search.picture",
    "TroupeError": "troupe.errors",
    "UniformEvaluator": "troupe.engines.evaluator",
    "UserError": "troupe.errors",
    "ValueModel": "troupe.models.language",
    "VerifiableConfig": "troupe.systems.selfplay.verifiable.config",
    "WalkForward": "troupe.systems.trading.walkforward",
    "WalkForwardConfig": "troupe.systems.trading.config",
    "Workflow": "troupe.protocols",
    "WorkflowRLConfig": "troupe.systems.workflow_rl.config",
    "Workspace": "troupe.tools.files",
    "answers_equal": "troupe.rewards.answers",
    "apply_patch": "troupe.sandbox.patches",
    "assess": "troupe.systems.trading.assessment",
    "backtest": "troupe.systems.trading.backtest",
    "bootstrap_interval": "troupe.maths.statistics",
    "check_batch_game": "troupe.testing",
    "check_game": "troupe.testing",
    "check_generator": "troupe.testing",
    "cispo": "troupe.maths.losses",
    "compiled_game": "troupe.search.compiled",
    "create_hrm_agent": "troupe.models.recursive_agents",
    "create_trm_agent": "troupe.models.recursive_agents",
    "credit_table": "troupe.training.credit",
    "deflated_sharpe": "troupe.maths.sharpe_tests",
    "demonstrations": "troupe.training.conversations",
    "detect_market_regime": "troupe.envs.market.regimes",
    "dr_grpo": "troupe.maths.advantages",
    "edge_test": "troupe.maths.edge",
    "elo_of": "troupe.maths.ratings",
    "elo_ratings": "troupe.maths.ratings",
    "extract_answer": "troupe.rewards.answers",
    "from_openspiel": "troupe.envs.openspiel",
    "from_pettingzoo": "troupe.envs.pettingzoo",
    "gae": "troupe.maths.advantages",
    "grpo": "troupe.maths.advantages",
    "gspo": "troupe.maths.losses",
    "instrument": "troupe.envs.market.instruments",
    "load_bars": "troupe.envs.market.loading",
    "load_language_model": "troupe.models.language",
    "load_market": "troupe.envs.market.build",
    "load_player": "troupe.systems.selfplay.deploy",
    "load_puzzle_solver": "troupe.systems.puzzles.solving",
    "load_task_solver": "troupe.systems.selfplay.verifiable.deploy",
    "make_batch_game": "troupe.envs",
    "make_game": "troupe.envs",
    "make_patch": "troupe.sandbox.patches",
    "market_of": "troupe.envs.market.build",
    "math_reward_fn": "troupe.rewards.math",
    "mean_interval": "troupe.maths.statistics",
    "message": "troupe.episode",
    "minibatches": "troupe.batch",
    "mixed_market": "troupe.envs.market.mixture",
    "null_market": "troupe.envs.market.planted",
    "pack": "troupe.batch",
    "paired_difference": "troupe.maths.statistics",
    "pareto_front": "troupe.systems.trading.pareto",
    "pareto_sweep": "troupe.systems.trading.pareto",
    "pass_at_k": "troupe.maths.statistics",
    "pcgrad": "troupe.maths.gradients",
    "picture_of": "troupe.search.picture",
    "planted_market": "troupe.envs.market.planted",
    "planted_optimum": "troupe.envs.market.planted",
    "policy_value_net": "troupe.models.policy_value",
    "ppo_clip": "troupe.maths.losses",
    "prepare_aime": "troupe.tasks.competitions",
    "prepare_deepscaler": "troupe.tasks.competitions",
    "prepare_gsm8k": "troupe.tasks.datasets",
    "prepare_math": "troupe.tasks.competitions",
    "prepare_swe": "troupe.tasks.swe",
    "rae": "troupe.maths.advantages",
    "read_agents_yaml": "troupe.systems.trading.documented",
    "read_arc": "troupe.systems.puzzles.arc",
    "read_conversations": "troupe.training.conversations",
    "read_game24": "troupe.tasks.countdown",
    "read_gsm8k": "troupe.tasks.gsm8k",
    "read_logical_deduction": "troupe.tasks.logic_data",
    "read_mapf_grids": "troupe.tasks.grids",
    "read_planbench": "troupe.tasks.planbench",
    "read_prontoqa": "troupe.tasks.logic_data",
    "read_proofwriter": "troupe.tasks.logic_data",
    "read_quixbugs": "troupe.tasks.quixbugs",
    "read_r2e": "troupe.tasks.swebench",
    "read_swebench": "troupe.tasks.swebench",
    "regime_series": "troupe.envs.market.regimes",
    "register_market": "troupe.envs.market.faces",
    "reinforce_pp": "troupe.maths.advantages",
    "reinforce_pp_baseline": "troupe.maths.advantages",
    "resample": "troupe.envs.market.resampling",
    "rloo": "troupe.maths.advantages",
    "rotation_bound": "troupe.envs.market.rotation",
    "rotation_market": "troupe.envs.market.rotation",
    "run_episodes": "troupe.training.rollout",
    "scenario": "troupe.envs.market.simulator",
    "sharpe": "troupe.maths.finance",
    "simulate": "troupe.envs.market.simulator",
    "solve_in_words": "troupe.systems.selfplay.verifiable.in_words",
    "swe_reward_fn": "troupe.rewards.swe",
    "to_openspiel": "troupe.envs.openspiel",
    "to_pettingzoo": "troupe.envs.pettingzoo",
    "token_net": "troupe.models.token_net",
    "token_nll": "troupe.maths.losses",
    "tree_svg": "troupe.monitoring.tree_picture",
    "tree_text": "troupe.monitoring.tree_picture",
    "value_loss": "troupe.maths.losses",
    "wilson": "troupe.maths.statistics",
    "with_checkout": "troupe.tasks.swebench",
    "write_chains": "troupe.systems.selfplay.verifiable.deploy",
    "write_hierarchy_evaluation": "troupe.systems.trading.hierarchy_record",
    "write_selfplay_report": "troupe.monitoring.selfplay_report",
}
"""Public name -> the module that defines it."""

__all__ = sorted(["__version__", *HOMES])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in HOMES:  # `obj` lets Python itself add "Did you mean: ..."
        raise AttributeError(f"module 'troupe' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value = globals()[name] = getattr(import_module(HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Version of the installed distribution; a source tree that was never installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("troupe-train")
    except PackageNotFoundError:
        return "0+source"
