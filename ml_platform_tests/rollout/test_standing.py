"""Whatever dies between any two writes, a model has one champion at most, and a change holds as a whole or not at all."""

from datetime import UTC, datetime

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ml_platform.core.spec import RolloutSpec
from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.observations import Observed
from ml_platform.rollout.plan import Abort, Advance, Finish, aliases_after, follow, proven
from ml_platform.rollout.standing import Record, SetAlias, SetTag, Standing, completion, held, numbers, writes
from ml_platform.rollout.state import Rollout
from ml_platform_tests.selection import examples

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CANARY = RolloutSpec(strategy="canary", steps=(10, 100))


def version(number: int) -> Version:
    return Version("m", str(number), f"digest{number}", "2026-01-01", "run", "source")


class Registry(RuleBasedStateMachine):
    """Single writes as MLflow has them, by writers that may die after any of them. `holds` is what the last change said."""

    def __init__(self) -> None:
        super().__init__()
        self.tag: str | None = None
        self.aliases: dict[str, str] = {}
        self.holds = Standing()
        self.written = 0

    # --- the store ---

    def write(self, planned: list, dies_after: int | None) -> bool:
        """Whether all was written; dies after so many writes."""
        for done, one in enumerate(planned):
            if done == dies_after:
                return False
            if isinstance(one, SetTag):
                self.tag = one.record.to_json()
            elif one.number is None:
                self.aliases.pop(one.alias, None)
            else:
                assert isinstance(one, SetAlias)
                self.aliases[one.alias] = one.number
        return True

    def read(self) -> Standing:
        record = Record.from_json(self.tag)
        found = {alias: version(int(number)) for alias, number in held(self.aliases, record).items()}
        challenger = version(int(record.rollout.version)) if record.rollout else None
        return Standing(Aliases(**found), record.rollout, challenger)

    def change(self, aliases: Aliases, rollout: Rollout | None, dies_after: int | None) -> None:
        if not self.write(list(completion(self.aliases, Record.from_json(self.tag))), dies_after):
            return
        before = self.read()
        planned = list(writes(self.aliases, numbers(aliases), rollout))
        if self.write(planned, dies_after) or dies_after:
            self.holds = Standing(aliases, rollout, version(int(rollout.version)) if rollout else None)
        else:
            self.holds = before

    # --- what happens ---

    @initialize()
    def first(self) -> None:
        self.change(Aliases(champion=version(1)), None, None)

    dies = st.none() | st.integers(0, 5)

    @rule(number=st.integers(1, 6), dies=dies, spec=st.sampled_from([RolloutSpec(), CANARY]))
    def begin(self, number: int, dies: int | None, spec: RolloutSpec) -> None:
        now = self.read()
        if now.aliases.champion and now.aliases.champion.number == str(number):
            return
        rollout = Rollout.begin(version(number), now.aliases, spec, NOW, "somebody")
        self.become(rollout, dies)

    @rule(dies=dies, decision=st.sampled_from([Advance("on"), Abort("bad"), Finish("good"), None]))
    def go_on(self, dies: int | None, decision: Advance | Abort | Finish | None) -> None:
        rollout = self.read().active
        if rollout is None:
            return
        if rollout.phase == "proving":
            after = (
                follow(rollout, decision, Observed(), NOW, "")
                if isinstance(decision, Abort)
                else proven(rollout, "", NOW, "")
            )
        elif decision is None or (isinstance(decision, Advance) and rollout.step + 1 == len(rollout.spec.stages)):
            return
        else:
            after = follow(rollout, decision, Observed(), NOW, "")
        self.become(after, dies)

    @rule(dies=dies)
    def roll_back(self, dies: int | None) -> None:
        self.change(self.read().aliases.rolled_back(), self.read().rollout, dies)

    @rule(number=st.integers(1, 6), dies=dies)
    def register(self, number: int, dies: int | None) -> None:
        self.change(self.read().aliases.nominated(version(number)), self.read().rollout, dies)

    def become(self, rollout: Rollout, dies: int | None) -> None:
        aliases = aliases_after(rollout, self.read().aliases, version(int(rollout.version)), lambda n: version(int(n)))
        self.change(aliases, rollout, dies)

    # --- what is always true ---

    @invariant()
    def a_change_holds_as_a_whole_or_not_at_all(self) -> None:
        assert self.read() == self.holds

    @invariant()
    def there_is_one_champion_who_is_nothing_else(self) -> None:
        if self.holds == Standing():
            return
        aliases = self.read().aliases
        assert aliases.champion
        assert aliases.champion not in (aliases.previous, aliases.candidate)

    @invariant()
    def also_for_others_who_read_mlflow_itself(self) -> None:
        if self.holds != Standing():
            assert "champion" in self.aliases

    @invariant()
    def the_challenger_is_not_the_champion(self) -> None:
        traffic = self.read().traffic()
        assert traffic.challenger is None or traffic.challenger != traffic.champion


Registry.TestCase.settings = examples(300, stateful_step_count=30)
TestRegistry = Registry.TestCase
