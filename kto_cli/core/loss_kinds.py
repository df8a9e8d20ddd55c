"""Losses by name: what each needs, the settings it takes, and its sources. No torch: the command line reads it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Unit = Literal["row", "pair"]
Classes = Literal["both", "desirable", "any"]

VALUES = ("logistic", "concave", "linear", "kahneman-tversky")
POINTS = ("mismatched", "zero", "mean-reward", "opposite-class")
"""Estimates of the reference point: of mismatched completions, none, of all rows so far, of the step's other class."""
BETA = 0.1
"""KTO's default, 1 / nats."""


class LossSettings(NamedTuple):
    """What a loss depends on besides its rows."""

    beta: float
    """1 / nats: a reward is beta * log-ratio. 1 where the loss has no beta."""
    lambda_d: float = 1.0
    """Weight of a desirable row."""
    lambda_u: float = 1.0
    """Weight of an undesirable row."""
    loss: str = "kto"
    """A name in `LOSSES`."""
    value: str = "logistic"
    """A name in `VALUES`, of the unpaired losses."""
    point: str = "mismatched"
    """A name in `POINTS`, of the unpaired losses."""
    reference: bool = True
    """Log-ratios to the reference; False: log-probs a token in their place."""
    sft_weight: float = 0.0
    """Weight of the mean negative log-likelihood of a token of desirable rows, added to the loss."""
    label_smoothing: float = 0.0
    """dpo: share of pairs whose labels are taken to be swapped."""
    ipo_tau: float = 0.1
    slic_delta: float = 1.0
    slic_lambda: float = 0.1
    simpo_gamma: float = 1.0
    orpo_lambda: float = 0.1
    ppo_gamma: float = 0.99
    """ppo-offline: discount of a reward a token later."""
    ppo_lambda: float = 0.95
    """ppo-offline: decay of the trace of generalized advantage estimation."""
    ppo_clip: float = 4.0
    """ppo-offline: ratios outside [1 / clip, clip] have no gradient that leads further out."""
    ppo_critic: float = 0.01
    """ppo-offline: weight of the value head's squared error."""
    ppo_penalty: float = 0.1
    """ppo-offline: weight of the mean log-ratio of a token."""
    humanline: bool = False
    """Log-ratios of single tokens are kept within bounds before they are summed (arXiv 2509.24207)."""
    humanline_low: float = -1.0
    humanline_high: float = 1.5
    """The bounds, nats; the authors' defaults."""
    control_good: str = "<|good|>"
    """csft: text at the end of the prompt of a desirable row. The paper's, as the next."""
    control_bad: str = "<|bad|>"
    """csft: that of an undesirable row."""

    @property
    def kind(self) -> LossKind:
        """What is known of the loss."""
        return kind_of(self.loss)

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads log-probs of single tokens."""
        return self.humanline or self.kind.per_token

    @property
    def control(self) -> tuple[str, str] | None:
        """Texts at the end of the prompts of desirable and of undesirable rows, where the loss asks for some."""
        return (self.control_good, self.control_bad) if self.kind.control else None


class LossKind(NamedTuple):
    """A loss: its unit, what it needs of the data, its settings and its sources."""

    formula: str
    """Of one unit, in TeX."""
    unit: Unit
    classes: Classes
    source: str
    settings: tuple[str, ...] = ()
    """Fields of `LossSettings` that it takes, besides sft_weight."""
    beta: float | None = None
    """Default; None: it has none."""
    value: str = ""
    point: str = ""
    """Of an unpaired loss."""
    weighted: bool = False
    """lambda_d and lambda_u are chosen from the class counts; else they are 1."""
    reference: bool = True
    """The loss itself reads reference log-probs."""
    rate: float = 1.0
    """Factor of the default learning rate."""
    tokens: bool = False
    """The mean is over completion tokens; else over units."""
    per_token: bool = False
    """It reads log-probs of single tokens, the policy's and the reference's; else their sums."""
    control: bool = False
    """Prompts end with a text that says the row's class."""

    @property
    def clamps(self) -> bool:
        """Whether it reads log-ratios alone, so that those of single tokens can be kept within bounds (humanline)."""
        return self.reference and not self.per_token and self is not CUSTOM

    @property
    def is_unpaired(self) -> bool:
        """Whether it is a value function of a reference point."""
        return bool(self.value)


_UNPAIRED = ("beta", "lambda_d", "lambda_u", "value", "point")
_U = r"w_i\,L\big(\beta s_i (q_i - z)\big)"
LOSSES: dict[str, LossKind] = {
    "kto": LossKind(
        _U + r",\ L(u) = 1 - \sigma(u),\ z = \max(0, \overline{q_{\mathrm{mismatched}}})",
        "row", "both", "arXiv 2402.01306v1, Eq. 7 and 8",
        settings=(*_UNPAIRED, "reference"), beta=BETA, value="logistic", point="mismatched", weighted=True,
    ),
    "apo-zero-unpaired": LossKind(
        _U + r",\ L(u) = 1 - \sigma(u),\ z = 0",
        "row", "both", "arXiv 2408.06266; TRL 1.16",
        settings=_UNPAIRED, beta=BETA, value="logistic", point="zero", weighted=True,
    ),
    "bco": LossKind(
        _U + r",\ L(u) = -\log\sigma(u),\ z = \overline{q_{\mathrm{so\ far}}}",
        "row", "both", "arXiv 2404.04656, without its density ratios; TRL 1.13",
        settings=_UNPAIRED, beta=BETA, value="concave", point="mean-reward", rate=0.1,
    ),
    "sft": LossKind(
        r"-l_i \,/\, \mathrm{tokens}", "row", "desirable", "maximum likelihood", reference=False, tokens=True
    ),
    "csft": LossKind(
        r"-\log \pi(y_i \mid x_i\,c_{s_i}) \,/\, \mathrm{tokens}", "row", "both", "arXiv 2402.01306v1, appendix B",
        settings=("control_good", "control_bad"), reference=False, tokens=True, control=True,
    ),
    "dpo": LossKind(
        r"-\log\sigma\big(\beta (q_w - q_l)\big)", "pair", "both", "arXiv 2305.18290, Eq. 7; label smoothing: cDPO",
        settings=("beta", "label_smoothing"), beta=BETA, rate=0.1,
    ),
    "ipo": LossKind(
        r"\big(q_w / T_w - q_l / T_l - 1 / (2\tau)\big)^2", "pair", "both", "arXiv 2310.12036, Eq. 17, a token as TRL",
        settings=("ipo_tau",), rate=0.1,
    ),
    "slic": LossKind(
        r"\max(0, \delta - l_w + l_l) - \lambda\, l_w", "pair", "both", "arXiv 2305.10425, as the KTO paper's runs",
        settings=("slic_delta", "slic_lambda"), reference=False,
    ),
    "simpo": LossKind(
        r"-\log\sigma\big(\beta (l_w / T_w - l_l / T_l) - \gamma\big)", "pair", "both", "arXiv 2405.14734, Eq. 6",
        settings=("beta", "simpo_gamma"), beta=2.0, reference=False, rate=0.1,
    ),
    "orpo": LossKind(
        r"-l_w / T_w - \lambda \log\sigma\big(\mathrm{logit}\,e^{l_w / T_w} - \mathrm{logit}\,e^{l_l / T_l}\big)",
        "pair", "both", "arXiv 2403.07691, Eq. 6; its likelihood is of the completion alone",
        settings=("orpo_lambda",), reference=False, rate=0.1,
    ),
    "apo-zero": LossKind(
        r"1 - \sigma(\beta q_w) + \sigma(\beta q_l)", "pair", "both", "arXiv 2408.06266",
        settings=("beta",), beta=BETA, rate=0.1,
    ),
    "apo-down": LossKind(
        r"\sigma(\beta q_w) + 1 - \sigma\big(\beta (q_w - q_l)\big)", "pair", "both", "arXiv 2408.06266",
        settings=("beta",), beta=BETA, rate=0.1,
    ),
    "nca": LossKind(
        r"-\log\sigma(\beta q_w) - \tfrac12 \log\sigma(-\beta q_w) - \tfrac12 \log\sigma(-\beta q_l)",
        "pair", "both", "arXiv 2402.05369", settings=("beta",), beta=BETA, rate=0.1,
    ),
    "ppo-offline": LossKind(
        r"\max\big(-A_t p_t, -A_t\,\mathrm{clip}(p_t, \tfrac1c, c)\big) + \tfrac{c_V}{2} (V_t - R_t)^2 + c_q \log p_t,"
        r"\ p_t = e^{l_t - l_{\mathrm{ref},t}}",
        "row", "both", "arXiv 2402.01306v1, section 3.3 and appendix B",
        settings=("ppo_gamma", "ppo_lambda", "ppo_clip", "ppo_critic", "ppo_penalty"), tokens=True, per_token=True,
    ),
}  # fmt: skip
"""Name -> loss, in the order of --help."""
CUSTOM = LossKind("", "row", "any", "your function", settings=("beta", "lambda_d", "lambda_u"), beta=BETA)
"""A loss given as MODULE:FUNCTION (`custom_loss.py`)."""


def is_custom(name: str) -> bool:
    """Whether a loss is a function of the user's."""
    return ":" in name


def kind_of(name: str) -> LossKind:
    """The loss of a name.

    Raises:
        KeyError: there is none.
    """
    return CUSTOM if is_custom(name) else LOSSES[name]
