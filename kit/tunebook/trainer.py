"""Training as people use it: rows and settings in, a trained model and a result out, anyone may watch.

The run itself is a generator of events (`train/loop.py`). `train` and `train_async` make one, anew or from a
checkpoint, and have it told to those who subscribed (`runs/listeners.py`); they differ only in whether the caller waits
or awaits.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper

from .config import TrainingConfig
from .data.formats import FormattingFunc, Markers
from .data.opened import ReadingOptions
from .data.pretraining import MultimodalPretrain
from .data.sources import Source
from .events import Command, Request
from .export.gguf.feasibility import gguf_notice
from .jobs.layout import Order
from .jobs.run import Run as StartedRun
from .jobs.starting import hosts_of, save, start
from .jobs.work import HoldsModel, ResumeFrom, Work, begun
from .machine.interrupts import end_on_terminate, held_back
from .memory.forecast import EXAM, Estimate, estimate
from .models.loaded import loaded_in
from .objectives.base import Objective, check_rows, check_settings
from .objectives.next_token import NextToken
from .objectives.reference import Reference
from .rate_finder.found import RateFound, ladder
from .rate_finder.trial import find
from .runs.hearing import Hearing
from .runs.listeners import Audience, Listener, StepCallback, drain, drain_async, step_listener
from .runs.lock import RunLock
from .runs.progress_bar import run_bar
from .runs.result import TrainResult, result_of
from .settings import arguments
from .settings.taken import call
from .tokens.batch_order import total_steps
from .train.datasets import Datasets, encode_more, prepare, skips_unreadable
from .train.evaluation import Score, check_evaluation, score_now
from .train.kept.identity import base_of
from .train.loop import Run
from .train.passes.beforehand import check_beforehand
from .train.plan import RunExam, RunPlan


class Trainer:
    """Trains the trainable parameters of a loaded model.

        >>> trainer = Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(max_steps=2))
        >>> result = trainer.train()

    Every row is read, rendered, tokenized and checked here, before the first step. A dataset is anything
    `sources.read_rows` opens: rows, a frame, a `datasets` object, a path, a hub id; or it is a MultimodalPretrain;
    without `eval_dataset` a share of `train_dataset` is held out. `tokenizer` is the model's own, `args` the settings.
    `objective` is what a step minimises, one of `tunebook.objectives`, such as `DPO()`, which
    takes rows of preferences; None: the next token's loss. `exam`, a `scores.Exam`, is taken while it trains, and
    those of its rows that are trained on are told of.
    `format` names one of `formats.FORMATS` when the columns do not tell; `formatting_func` is called with each row
    first; `response_markers` are as for `train_on_responses_only`. Raises ValueError, with all of them and what mends
    them, for rows that cannot be trained on; `skip_bad_rows` leaves them out, and a notice lists them.
    """

    @call("Trainer")
    def __init__(
        self,
        model: HoldsModel,
        tokenizer: "TokenizerWrapper | None" = None,  # any other is answered below
        *,
        train_dataset: Source | MultimodalPretrain,
        eval_dataset: Source | MultimodalPretrain | None = None,
        args: TrainingConfig | None = None,
        objective: Objective | None = None,
        exam: RunExam | None = None,
        format: str | None = None,
        formatting_func: FormattingFunc | None = None,
        response_markers: Markers | None = None,
        skip_bad_rows: bool = False,
    ):
        self.loaded, self._model = loaded_in(model, "Trainer"), model
        if tokenizer is not None and tokenizer is not self.loaded.tokenizer:
            raise ValueError("This tokenizer is not the model's own; pass the one from_pretrained returned beside it.")
        self.config, self.objective, self.exam = args or TrainingConfig(), objective or NextToken(), exam
        asked = self.config.max_seq_length or self.loaded.max_seq_length
        self.max_seq_length = self.loaded.family.tables.longest(asked)
        options = ReadingOptions(
            format=format,
            train_on=self.config.train_on,
            response_markers=response_markers,
            formatting_func=formatting_func,
            thinking=self.config.thinking,
            skip_bad_rows=skip_bad_rows,
            answers=self.objective.compares,
        )
        self.prepare(Datasets(train=train_dataset, held_out=eval_dataset, options=options))
        self._shows_progress = False
        self._listeners: list[tuple[str, Listener]] = []  # with the name each is called by in a report
        self._run: Run | StartedRun | None = None

    def prepare(self, datasets: Datasets) -> None:
        """Read the rows of `datasets` in place of those before, which stay where these are refused.

        The next run trains on them.
        """
        check_settings(self.objective, self.config)
        data = prepare(datasets, self.loaded, self.config, self.max_seq_length)
        data.notices.extend(gguf_notice(self.loaded))
        train_rows = data.feed.known  # of a stream the first
        eval_rows = data.held_out.rows if data.held_out else []
        check_rows(self.objective, train_rows)
        if datasets.held_out is not None:
            check_rows(self.objective, eval_rows)
        check_evaluation(self.config, eval_rows, self.exam)
        if self.exam is not None:
            data.notices.extend(self.exam.shared_with(self.loaded, train_rows))
        check_beforehand(self.objective, self.config, data.feed)
        self.datasets, self.data, self.train_rows, self.eval_rows = datasets, data, train_rows, eval_rows
        self.total_steps = total_steps(len(train_rows), self.config)

    def subscribe(self, listener: Listener, *, shows_progress: bool = False) -> None:
        """Have `listener(event)` called with every event of every run, in order, on the training thread.

        One that raises is reported and switched off, and training goes on. One that `shows_progress` takes the place of
        the progress bar.
        """
        self._shows_progress |= shows_progress
        self._listeners.append((f"The listener {listener!r}", listener))

    def add_step_callback(self, callback: StepCallback) -> None:
        """Have `callback` called after every optimizer step with nine positional values.

        They are step, total_steps, loss, lr, tokens_sec, peak_gb, elapsed, num_tokens and grad_norm, as
        `events.StepEvent` describes them; a callback that takes eight is called without grad_norm. Raises TypeError
        at once for one that takes neither; one that raises later is reported and switched off.
        """
        self._listeners.append((f"The step callback {callback!r}", step_listener(callback)))

    def send(self, command: Command | str, value: float | None = None) -> None:
        """Leave a command for the run in progress, from any thread; it is heard between two micro-batches.

        `send("learning_rate", 5e-5)` is the only one with a value: the schedule goes on, towards this rate.
        """
        request = Request(Command(command), value)
        if self._run is None:
            raise RuntimeError(f"Nothing is being trained, so nobody hears '{request.command}'.")
        if isinstance(self._run, StartedRun):
            self._run.send(command, value)
        else:
            self._run.controls.ask(request)

    def stop(self) -> None:
        """End the run with the step in progress."""
        self.send(Command.STOP)

    @call("train")
    def train(self, resume_from_checkpoint: ResumeFrom = None) -> TrainResult:
        """Train, blocking until done. In a notebook prefer `await trainer.train_async()`: there the buttons work.

        `resume_from_checkpoint` True or "latest" goes on with the newest run in `output_dir` that has a checkpoint and
        is of this model, these rows and settings; a path names a run folder or one checkpoint. Raises
        ForeignCheckpoint, with the differences, for one of another run, and RunInUse while another process trains in
        the folder.

        An interrupt ends the run, which is saved and returns its result. Those that come while it ends are held back
        until it has ended, for ten seconds at most after the first of them. SIGTERM ends the process behind the run.
        """
        with ExitStack() as held:
            run, audience = self._start(resume_from_checkpoint, held)
            with run.interrupts, end_on_terminate(self.stop):
                drain(run.events(awaited=False), audience)
        return result_of(audience.told, run.folder)

    async def train_async(self, resume_from_checkpoint: ResumeFrom = None) -> TrainResult:
        """`train`, letting the kernel hear the browser between micro-batches."""
        with ExitStack() as held:
            run, audience = self._start(resume_from_checkpoint, held)
            with run.interrupts, end_on_terminate(self.stop):
                await drain_async(run.events(awaited=True), audience)
        return result_of(audience.told, run.folder)

    @call("start")
    def start(
        self,
        *,
        restarts: arguments.Restarts = 0,
        keep: arguments.Keep = False,
        processes: arguments.Processes = 1,
        hosts: arguments.Hosts = None,
        again: arguments.Again = False,
    ) -> StartedRun:
        """Train in a process of its own, and return at once with a handle on the run: `run.result()` is what it gives.

            >>> run = trainer.start()
            >>> result = run.result()

        The weights become those of `train`, bit for bit; `run.result()` puts them into this model. Callbacks are called
        here. Runs wait for one another unless they fit into memory together (`tunebook.jobs.queue()`). A cell that is
        run again gets the run it began, and it is said. Raises NotCarried for what no other process can go by.
        """
        order = Order(restarts=restarts, keep=keep, processes=processes, hosts=hosts_of(hosts, processes))
        run = start(self._work(), self.data.train.rows, self.memory(), order, again=again)
        for _, listener in self._listeners:
            run.subscribe(listener)
        self._run = run
        return run

    @call("save_job")
    def save_job(self, folder: arguments.Into) -> Path:
        """Write all that this run begins with into a folder, for `python -m tunebook train FOLDER`, here or elsewhere.

        There is no code in it. The model is found by its name, or beside the folder where it lay so. Raises as `start`
        does, and ValueError for a folder that holds something.
        """
        return save(self._work(), self.data.train.rows, Path(folder).expanduser(), self.memory())

    @call("evaluate")
    def evaluate(self, rows: Source | MultimodalPretrain | None = None) -> Score:
        """The loss of the model as it is now, on `rows`, read as the training rows were; None: on the held-out rows.

        Nothing is trained. Rows that were cut or left out are told of in `Score.notices`. Raises ValueError for rows
        that cannot be trained on, and without `rows` when there is no eval_dataset.
        """
        if rows is None and not self.eval_rows:
            raise ValueError("This trainer has no eval_dataset; pass rows: trainer.evaluate(rows).")
        more = None if rows is None else encode_more(rows, self.datasets, self.loaded, self.config, self.max_seq_length)
        if more is not None:
            check_rows(self.objective, more.rows)
        measured = score_now(
            self.loaded.module,
            self.loaded.family,
            self.eval_rows if more is None else more.rows,
            batch_size=self.config.per_device_eval_batch_size or self.config.per_device_train_batch_size,
            max_seq_length=self.max_seq_length,
            skip_unreadable=self.data.skip_unreadable or skips_unreadable(rows),
            objective=self.objective,
            reference=self._reference(),
            are_held_out=more is None,
        )
        return measured if more is None else replace(measured, notices=tuple(more.notices))

    @call("find_learning_rate")
    def find_learning_rate(
        self, *, lowest: arguments.Lowest = 1e-6, highest: arguments.Highest = 0.1, steps: arguments.Tries = 40
    ) -> RateFound:
        """Train a few steps at rising rates, put everything back, and say which rate to train with.

            >>> found = trainer.find_learning_rate(steps=4)

        `print(found)` is the reason, `found.rate` the number, None where no rate lowered the loss. Each step costs what
        a step of `train` costs, and a look at eight rows. Raises as `train` does, with everything put back.
        """
        return find(self._work(), ladder(lowest, highest, steps))

    def memory(self) -> Estimate:
        """What training on these rows takes, part by part; see `memory.estimate`."""
        found = estimate(self._model, self.config, rows=self.train_rows, objective=self.objective)
        return replace(found, not_counted=None if self.exam is None else EXAM)

    def _start(self, resume_from: ResumeFrom, held: ExitStack) -> tuple[Run, Audience]:
        """A new or resumed run, whose folder is this run's alone until `held` is left, and those to tell of it."""

        def hold(run_folder: Path) -> RunLock:
            with held_back():  # a lock that an interrupt left behind would be held for as long as this process lives
                return held.enter_context(RunLock(run_folder))

        run, earlier = begun(self._work(), hold, resume_from)
        self._run = run
        bar = [] if self._shows_progress else [("The progress bar", run_bar())]
        outside: list[tuple[str, Listener]] = []
        if run.folder is not None:
            outside = [("What others see", held.enter_context(Hearing(run.controls, run.folder)))]
        # Of several processes one tells: what listeners print or draw would be there once for each.
        audience = Audience([*outside, *bar, *self._listeners] if run.ranks.is_first else [], run.folder, earlier)
        self._model.run_events = audience.told  # as it grows: an export may be made in the middle of the run
        return run, audience

    def _work(self) -> Work:
        plan = RunPlan(
            loaded=self.loaded,
            config=self.config,
            objective=self.objective,
            feed=self.data.feed,
            eval_rows=self.eval_rows,
            max_seq_length=self.max_seq_length,
            skip_unreadable=self.data.skip_unreadable,
            prompts=self.data.prompts,
            exam=self.exam,
            base=cache(partial(base_of, self.loaded)),
        )
        return Work(model=self._model, plan=plan, notices=self.data.notices)

    def _reference(self) -> Reference:
        """What the last run is measured against; before the first, the model as it is."""
        here = self._run if isinstance(self._run, Run) else None
        reference = here.reference if here is not None else Reference(self.loaded.module, self.objective)
        reference.settle()
        return reference
