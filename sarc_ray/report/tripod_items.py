"""The items of TRIPOD+AI in our own words: what a report of a prediction model must tell.

Source: Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction
models that use regression or machine learning methods. BMJ 2024;385:e078378. The statement has 27 items, some of them
in parts; its own wording is binding for a submission.
"""

from __future__ import annotations

from dataclasses import dataclass

DEVELOPMENT, EVALUATION, BOTH = "D", "E", "D;E"
N_ITEMS = 27


@dataclass(frozen=True, slots=True)
class Item:
    """One item, or a part of one.

    Attributes:
        number: such as ``12c``.
        section: of the manuscript.
        topic: a few words.
        study: for studies that develop a model (D), evaluate one (E), or both (D;E).
        asks: what it wants to be told.
    """

    number: str
    section: str
    topic: str
    study: str
    asks: str


_TITLE, _INTRO, _METHODS = "Title and abstract", "Introduction", "Methods"
_OPEN, _PUBLIC, _RESULTS, _DISCUSSION = "Open science", "Patient and public involvement", "Results", "Discussion"

ITEMS: tuple[Item, ...] = (
    Item("1", _TITLE, "Title", BOTH, "Says that a model is developed or evaluated, for whom, and for which outcome."),
    Item("2", _TITLE, "Abstract", BOTH, "Follows the statement's own list for abstracts."),
    Item(
        "3a", _INTRO, "Background", BOTH, "Clinical context (diagnosis or prognosis), why this model, earlier models."
    ),
    Item("3b", _INTRO, "Background", BOTH, "Whom it is meant for, where in the path of care, and who will use it."),
    Item("3c", _INTRO, "Background", BOTH, "Known inequalities of health between groups of people."),
    Item("4", _INTRO, "Objectives", BOTH, "The study's aims; development, evaluation, or both."),
    Item(
        "5a",
        _METHODS,
        "Data",
        BOTH,
        "Sources of the data for development and for evaluation, why they, and for whom they stand.",
    ),
    Item("5b", _METHODS, "Data", BOTH, "Dates: first and last participant, end of follow-up."),
    Item("6a", _METHODS, "Participants", BOTH, "Setting, and how many centres where."),
    Item("6b", _METHODS, "Participants", BOTH, "Who was eligible."),
    Item("6c", _METHODS, "Participants", BOTH, "Treatments that participants received, and how they were dealt with."),
    Item(
        "7",
        _METHODS,
        "Data preparation",
        BOTH,
        "Preprocessing and checks of quality; whether alike for all groups of people.",
    ),
    Item(
        "8a",
        _METHODS,
        "Outcome",
        BOTH,
        "The outcome and its horizon, how and when assessed, why this one, whether alike for all groups.",
    ),
    Item("8b", _METHODS, "Outcome", BOTH, "Where judgement is needed: who assessed the outcome."),
    Item("8c", _METHODS, "Outcome", BOTH, "Whether its assessment was blinded."),
    Item(
        "9a",
        _METHODS,
        "Predictors",
        DEVELOPMENT,
        "How the first set of predictors was chosen, and any selection before modelling.",
    ),
    Item("9b", _METHODS, "Predictors", BOTH, "Every predictor: definition, how and when measured, whether blinded."),
    Item("9c", _METHODS, "Predictors", BOTH, "Where judgement is needed: who assessed the predictors."),
    Item(
        "10",
        _METHODS,
        "Sample size",
        BOTH,
        "How the size came about for development and evaluation, and why it suffices.",
    ),
    Item("11", _METHODS, "Missing data", BOTH, "How missing values were handled; why data were left out."),
    Item("12a", _METHODS, "Analysis", DEVELOPMENT, "How the data were used, and whether and how they were divided."),
    Item("12b", _METHODS, "Analysis", DEVELOPMENT, "How predictors entered: form, rescaling, transformation."),
    Item(
        "12c",
        _METHODS,
        "Analysis",
        DEVELOPMENT,
        "Kind of model, why, every step of building it, tuning, internal validation.",
    ),
    Item(
        "12d",
        _METHODS,
        "Analysis",
        BOTH,
        "Whether and how differences between clusters, such as hospitals, were measured.",
    ),
    Item("12e", _METHODS, "Analysis", BOTH, "All measures and plots of performance, and comparisons of models."),
    Item("12f", _METHODS, "Analysis", EVALUATION, "Any updating of the model that the evaluation led to."),
    Item("12g", _METHODS, "Analysis", EVALUATION, "How predictions were computed: formula, code, object, service."),
    Item("13", _METHODS, "Class imbalance", BOTH, "Methods against imbalance, why, and recalibration after them."),
    Item("14", _METHODS, "Fairness", BOTH, "What was done about fairness, and why."),
    Item(
        "15", _METHODS, "Output", DEVELOPMENT, "What the model gives; any classes, and how their thresholds were found."
    ),
    Item(
        "16",
        _METHODS,
        "Development against evaluation",
        BOTH,
        "How the two differ in setting, eligibility, outcome, predictors.",
    ),
    Item("17", _METHODS, "Ethics", BOTH, "Which board approved the study; consent or its waiver."),
    Item("18a", _OPEN, "Funding", BOTH, "Sources of funding and the funders' part."),
    Item("18b", _OPEN, "Interests", BOTH, "Conflicts of interest of all authors."),
    Item("18c", _OPEN, "Protocol", BOTH, "Where the protocol is, or that there is none."),
    Item("18d", _OPEN, "Registration", BOTH, "Where the study is registered, or that it is not."),
    Item("18e", _OPEN, "Data", BOTH, "Whether and how the data can be had."),
    Item("18f", _OPEN, "Code", BOTH, "Whether and how the code of the analysis can be had."),
    Item("19", _PUBLIC, "Involvement", BOTH, "How patients and the public took part, or that they did not."),
    Item(
        "20a",
        _RESULTS,
        "Participants",
        BOTH,
        "Their flow through the study, with and without the outcome; follow-up time.",
    ),
    Item(
        "20b",
        _RESULTS,
        "Participants",
        BOTH,
        "Characteristics by source: dates, predictors, treatments, size, events, missing values; groups compared.",
    ),
    Item(
        "20c",
        _RESULTS,
        "Participants",
        EVALUATION,
        "Predictors and outcome of the evaluation data beside those of development.",
    ),
    Item("21", _RESULTS, "Development", BOTH, "Participants and events in each analysis."),
    Item(
        "22",
        _RESULTS,
        "Specification",
        DEVELOPMENT,
        "The whole model, so that others can predict with it; limits of access.",
    ),
    Item("23a", _RESULTS, "Performance", BOTH, "Estimates with intervals, also of key subgroups; plots."),
    Item("23b", _RESULTS, "Performance", BOTH, "Differences of performance between clusters, where examined."),
    Item("24", _RESULTS, "Updating", EVALUATION, "Results of updating: the new model and its performance."),
    Item(
        "25",
        _DISCUSSION,
        "Interpretation",
        BOTH,
        "What the main results mean, fairness included, beside aims and earlier studies.",
    ),
    Item(
        "26",
        _DISCUSSION,
        "Limitations",
        BOTH,
        "Limits of the study, and what they do to bias, uncertainty and generality.",
    ),
    Item("27a", _DISCUSSION, "Use", DEVELOPMENT, "What to do with poor or missing input when the model is used."),
    Item("27b", _DISCUSSION, "Use", DEVELOPMENT, "What users must do, and the expertise that it takes."),
    Item("27c", _DISCUSSION, "Use", BOTH, "Next steps of research, towards use and generality."),
)
