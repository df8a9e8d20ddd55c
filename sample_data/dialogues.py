"""The text behind the sample data: a small grammar of everyday questions with good and bad answers.

A question is a domain (garden, cooking, ...), an item (fern, lasagna, ...) and an issue (yellow leaves, ...).
A good answer is polite and stays with the issue; a bad one is rude, careless, vague or about something else.
Both are drawn to a target length from one distribution, so that length says nothing about the label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

LENGTHS = NormalDist(155, 42)
MULTI_TURN_SHARE = 0.30
RISKY_SHARE = 0.06
DRAFTS = 8


@dataclass(frozen=True)
class Issue:
    """An embedded question such as "how to ..." and the tips that answer it."""

    question: str
    tips: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """Items, the issues one can have with each of them, and the bad advice a careless helper gives."""

    thing: str
    items: tuple[str, ...]
    issues: tuple[Issue, ...]
    more: tuple[str, ...]
    careless: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _issue(question: str, *tips: str) -> Issue:
    return Issue(question, tips)


GARDEN = Domain(
    "plant",
    _words(
        "fern, rose bush, cactus, orchid, lemon tree, basil, lavender, tomato plant, mint, olive tree, "
        "sunflower, ivy, chili plant, geranium, palm, fig tree"
    ),
    (
        _issue(
            "why the leaves of my {i} turn yellow",
            "Yellow leaves often mean too much water.",
            "Let the soil of your {i} dry before you water it again.",
            "Check that the pot has a hole at the bottom.",
            "A little plant food can bring the green back.",
        ),
        _issue(
            "how often I should water my {i}",
            "Push a finger into the soil and water your {i} only when it feels dry.",
            "Once or twice a week is enough in summer.",
            "In winter your {i} needs much less water.",
            "Water in the morning, and not on the leaves.",
        ),
        _issue(
            "where I should put my {i}",
            "Choose a bright place near a window for your {i}.",
            "Keep it away from cold wind and from the heater.",
            "Turn the pot a little every week so that all sides get light.",
            "If the leaves look burnt, move your {i} into the shade.",
        ),
        _issue(
            "when I should cut back my {i}",
            "Early spring is the best time to cut back your {i}.",
            "Use clean and sharp scissors.",
            "Take the dry branches first and leave the strong ones.",
            "Never cut more than a third at once.",
        ),
        _issue(
            "how to get rid of the small flies on my {i}",
            "Wash the leaves of your {i} with water and a drop of soap.",
            "Put a yellow sticky card next to the pot.",
            "Keep the top of the soil dry for a week, because the flies like it wet.",
            "Look under the leaves every few days.",
        ),
        _issue(
            "how to move my {i} into a bigger pot",
            "Pick a pot that is two fingers wider than the old one.",
            "Loosen the roots of your {i} gently and fill the gaps with fresh soil.",
            "Water it well after the move.",
            "Give your {i} a quiet week without sun or food.",
        ),
        _issue(
            "how to bring my {i} through the winter",
            "Bring your {i} inside before the first frost.",
            "A cool and bright room is ideal in the cold months.",
            "Give it only a little water until spring.",
            "If it has to stay outside, wrap the pot in a warm cloth.",
        ),
    ),
    (
        "Look at the leaves once a week.",
        "Plants like a steady place.",
        "Some fresh soil every year will do good.",
    ),
    (
        "Pour a whole bucket of water over your {i} and hope for the best.",
        "Put your {i} in a dark closet and forget it.",
        "Throw some salt on the soil, that may do something.",
        "Cut off all the leaves and see what happens.",
    ),
)

COOKING = Domain(
    "meal",
    _words(
        "lasagna, soup, curry, risotto, omelette, stew, pizza, chili, fried rice, paella, casserole, gratin, "
        "goulash, ramen, gumbo, quiche"
    ),
    (
        _issue(
            "how to make my {i} less salty",
            "Add some unsalted vegetables or potatoes to your {i}.",
            "A spoon of cream or yogurt makes the salt milder.",
            "A few drops of lemon juice also help.",
            "Next time, add the salt at the very end and taste first.",
        ),
        _issue(
            "how long my {i} keeps in the fridge",
            "Your {i} keeps for about three days in a closed box.",
            "Let it cool down first, but not longer than two hours.",
            "Write the date on the box.",
            "If it smells strange, please do not eat it.",
        ),
        _issue(
            "how to warm up my {i} without drying it out",
            "Warm up your {i} slowly and keep a lid on it.",
            "Add a spoon of water or broth before you start.",
            "Low heat takes longer but keeps it soft.",
            "Stir or turn it once in a while.",
        ),
        _issue(
            "how to make my {i} without meat",
            "Mushrooms give your {i} a rich taste without any meat.",
            "Beans or lentils make it filling.",
            "Smoked tofu is good if you like a strong flavor.",
            "Fry the vegetables well, because brown edges taste best.",
        ),
        _issue(
            "what I can serve with my {i}",
            "A green salad goes very well with your {i}.",
            "Fresh bread is always welcome at the table.",
            "Try something sour on the side, such as pickles.",
            "For dessert, fruit is light and easy.",
        ),
        _issue(
            "how to make my {i} taste less bland",
            "Fry the onions and the garlic longer before you make your {i}.",
            "A little lemon or vinegar wakes up the taste.",
            "Add fresh herbs just before you serve it.",
            "Toast the spices in a dry pan first.",
        ),
        _issue(
            "how to cook my {i} for ten people",
            "Multiply everything in your {i} by the number of guests, but go easy on the salt.",
            "Use two pans, because one large pan cooks unevenly.",
            "Prepare the vegetables the day before.",
            "Plan half an hour more than usual.",
        ),
    ),
    (
        "Taste it often while you cook.",
        "Fresh herbs always help.",
        "Let it rest for five minutes at the end.",
    ),
    (
        "Put everything into your {i} that you can find and close your eyes.",
        "Leave your {i} on the table for a week and then see.",
        "Turn the heat up as high as it goes and walk away.",
        "Add ten spoons of sugar, nobody will notice.",
    ),
)

HOME = Domain(
    "machine",
    _words(
        "washing machine, fridge, oven, dishwasher, kettle, vacuum cleaner, coffee machine, heater, fan, "
        "toaster, dryer, blender, freezer, microwave, sewing machine, printer"
    ),
    (
        _issue(
            "how to clean my {i}",
            "Pull the plug before you clean your {i}.",
            "Warm water with a little soap is enough for the outside.",
            "Use a soft brush for the corners.",
            "Dry every part well before you use it again.",
        ),
        _issue(
            "why my {i} makes a loud noise",
            "A loose screw is the most common reason for a loud noise.",
            "Check that your {i} stands flat on the floor or the table.",
            "Switch it off and look for a small thing that got stuck.",
            "If the noise stays, ask the repair shop to have a look.",
        ),
        _issue(
            "why my {i} smells bad",
            "A bad smell often comes from old dirt, so wipe your {i} inside and out.",
            "Leave it open for an hour to let fresh air in.",
            "A bowl of baking soda takes the smell away over night.",
            "If it smells burnt, pull the plug and call an expert.",
        ),
        _issue(
            "how to make my {i} last longer",
            "Clean the filter of your {i} once a month if it has one.",
            "Do not overload it, and give it breaks.",
            "Keep the manual and follow its care plan.",
            "Small repairs done early save your {i} from big ones.",
        ),
        _issue(
            "how to use less power with my {i}",
            "Switch off your {i} at the wall when you do not need it.",
            "The eco program is slower but saves a lot.",
            "Run it less often, and only when it is worth it.",
            "A cheap power meter shows you what your {i} really uses.",
        ),
        _issue(
            "why my {i} does not start",
            "Try another socket first, because the fuse may be out.",
            "Look at the cable of your {i} and never touch a broken one.",
            "Wait ten minutes and press the start button again.",
            "If nothing happens, the repair shop can test it.",
        ),
        _issue(
            "how to move my {i} to a new flat",
            "Clean and dry your {i} the day before you move.",
            "Tape the loose parts and the cable to the back.",
            "Wrap your {i} in a thick blanket.",
            "Ask a friend to carry it with you, your back will be grateful.",
        ),
    ),
    (
        "Keep the manual in a drawer.",
        "Look at the cable now and then.",
        "A clean filter solves many problems.",
    ),
    (
        "Hit your {i} with a hammer until something changes.",
        "Take your {i} apart while it is still plugged in.",
        "Leave it as it is and buy a new one every month.",
        "Spray some oil on it, any oil will do.",
    ),
)

SCHOOL = Domain(
    "homework",
    _words(
        "history essay, math test, chemistry report, book report, biology project, spelling test, "
        "physics quiz, geography talk, French exam, music exam, art project, "
        "science poster, Latin test, class speech, English essay, computer project"
    ),
    (
        _issue(
            "how to start my {i}",
            "Write down three questions that your {i} should answer.",
            "Begin with the part that you like best.",
            "Set a timer for ten minutes and just start.",
            "Collect your notes in one place first.",
        ),
        _issue(
            "how to stay calm before my {i}",
            "Breathe slowly and count to ten before your {i}.",
            "Pack your bag the evening before.",
            "Sleep well, because a rested head works better.",
            "Remember that one bad day does not decide everything.",
        ),
        _issue(
            "how to plan the week before my {i}",
            "Split the work for your {i} into five small steps, one for each day.",
            "Do the hard part on the first day.",
            "Keep the last evening free for rest.",
            "Put the plan on the wall where you can see it.",
        ),
        _issue(
            "how to remember more for my {i}",
            "Make small cards for your {i} and mix them every day.",
            "Explain the topic aloud to someone at home.",
            "Short and frequent sessions work better than one long night.",
            "Draw a picture for every hard idea.",
        ),
        _issue(
            "how to finish my {i} on time",
            "Set your own date two days before your {i} is due.",
            "Turn off the phone for half an hour and work without breaks.",
            "First make it complete and then make it nice.",
            "Tick off every step that is done.",
        ),
        _issue(
            "how to ask my teacher about my {i}",
            "Write your question about your {i} on a card before the lesson.",
            "Most teachers have time right after the class.",
            "Say what you already understand and where you got lost.",
            "A short and friendly message is fine too.",
        ),
        _issue(
            "how to work on my {i} with a friend",
            "Share the parts of your {i} fairly and write down who does what.",
            "Meet in a quiet room, such as the library.",
            "Test each other at the end of every meeting.",
            "Agree on breaks, so that you have fun as well.",
        ),
    ),
    ("Ask early when something is not clear.", "A short walk helps you think.", "Keep your notes tidy."),
    (
        "Do your {i} in the last five minutes, it is all the same.",
        "Copy your {i} from the person next to you.",
        "Stay up the whole night and skip breakfast.",
        "Write down anything, nobody reads it.",
    ),
)

TRAVEL = Domain(
    "journey",
    tuple(
        "trip to " + city
        for city in _words(
            "Lisbon, Vienna, Prague, Oslo, Kyoto, Cairo, Lima, Dublin, Athens, Seville, Bergen, Montreal, "
            "Porto, Krakow, Naples, Hanoi"
        )
    ),
    (
        _issue(
            "what to pack for my {i}",
            "Check the weather two days before your {i} and pack in layers.",
            "Bring good shoes, because you will walk a lot.",
            "A copy of your passport is useful.",
            "Leave some room in the bag for the way home.",
        ),
        _issue(
            "how to save money on my {i}",
            "Book the train or the flight for your {i} early and travel in the middle of the week.",
            "Many museums are free on one day of the month.",
            "Eat your big meal at noon, when it is cheaper.",
            "A city card can pay off if you see a lot.",
        ),
        _issue(
            "how to plan my {i} with small children",
            "Plan only one big thing per day of your {i}.",
            "Look for a playground near the hotel.",
            "Carry snacks and water at all times.",
            "Let the children choose one stop each day.",
        ),
        _issue(
            "when I should book my {i}",
            "About three months ahead is a good time to book your {i}.",
            "Avoid the school holidays if you can.",
            "Spring and autumn are mild and less crowded.",
            "Choose a ticket that you can change.",
        ),
        _issue(
            "how to stay safe on my {i}",
            "Keep your money in two different places during your {i}.",
            "Save the number of the embassy in your phone.",
            "Stay on busy streets at night.",
            "Tell someone at home where you are.",
        ),
        _issue(
            "how to find good food on my {i}",
            "Ask people who live there, they know the best food for your {i}.",
            "Walk two streets away from the main square.",
            "A short menu is often a good sign.",
            "Visit the market in the morning and try small things.",
        ),
        _issue(
            "how to get around on my {i}",
            "A day ticket for the bus and the tram is the easiest choice for your {i}.",
            "Load the city map on your phone before you leave.",
            "Walk when the way is short, you will see more.",
            "Take an official taxi late at night.",
        ),
    ),
    ("Learn a few words of the language.", "Keep one day free of plans.", "Take a small bag for the day."),
    (
        "Leave your passport at home for your {i}, it is only heavy.",
        "Take any train and see where it ends.",
        "Carry all your money in an open bag on your {i}.",
        "Do not plan anything, you will sleep somewhere.",
    ),
)

PETS = Domain(
    "pet",
    _words(
        "dog, cat, rabbit, parrot, hamster, guinea pig, pony, kitten, puppy, canary, gerbil, ferret, "
        "beagle, poodle, terrier, goat"
    ),
    (
        _issue(
            "how to calm my {i} during a storm",
            "Stay close to your {i} and speak in a soft voice.",
            "Close the windows and play quiet music.",
            "A small dark corner with a blanket feels safe.",
            "Do not force your {i} to come out.",
        ),
        _issue(
            "how often I should feed my {i}",
            "Two small meals a day are right for many pets, but check the age of your {i}.",
            "Always have fresh water ready.",
            "Feed at the same hours every day.",
            "The vet can tell you the right amount for your {i}.",
        ),
        _issue(
            "why my {i} does not eat",
            "Stress or a new food can be the reason that your {i} does not eat.",
            "Offer the old food again, in a clean bowl.",
            "Look at the teeth if you can do it gently.",
            "If it lasts longer than a day, please call the vet.",
        ),
        _issue(
            "how to train my {i} to come to me",
            "Call your {i} by name and give a small treat at once.",
            "Practice five minutes every day in a quiet room.",
            "Start close and add a step each week.",
            "Never scold your {i} when it comes late.",
        ),
        _issue(
            "how to keep my {i} clean",
            "Brush your {i} gently twice a week.",
            "Change the bedding often.",
            "Use warm water only, and a soap made for pets.",
            "Check the ears and the feet as well.",
        ),
        _issue(
            "how to take my {i} on a train",
            "Get your {i} used to the travel box a week before.",
            "Buy the right ticket and ask for a quiet seat.",
            "Bring water, a towel and a favorite toy.",
            "Do not feed your {i} right before you leave.",
        ),
        _issue(
            "how to keep my {i} busy while I am at work",
            "Hide small treats so that your {i} has something to find.",
            "Change the toys every few days.",
            "A friendly neighbor could visit at noon.",
            "Play for a while before you leave the house.",
        ),
    ),
    (
        "Watch how it behaves and write it down.",
        "A yearly visit to the vet is wise.",
        "Quiet hours matter a lot.",
    ),
    (
        "Give your {i} whatever falls from the table.",
        "Ignore your {i} until it gets better.",
        "Wake your {i} up every hour and see what happens.",
        "Leave your {i} alone for a week, it will manage.",
    ),
)

DOMAINS = (GARDEN, COOKING, HOME, SCHOOL, TRAVEL, PETS)

# Risky requests: an action, the object it is about; asked as "Is it fine to ...?".
RISKY = tuple(
    (action.format(o=o), o)
    for action, objects in (
        ("dry my wet {o} in the oven", "phone, camera, watch, tablet, radio, laptop"),
        ("leave the {o} on while I sleep", "stove, iron, grill, candle, hair dryer, camp fire"),
        (
            "eat the {o} that I left in the sun for two days",
            "chicken, fish, ham, egg salad, rice, cream cake",
        ),
        ("repair the {o} while it is plugged in", "lamp, television, socket, doorbell, drill, mixer"),
        ("climb on the wet {o} without a rope", "roof, wall, tower, rock, bridge, crane"),
    )
    for o in _words(objects)
)

ASKS = (
    "Can you tell me {q}?",
    "Could you explain {q}?",
    "Do you know {q}?",
    "I would like to know {q}.",
    "Please tell me {q}.",
    "I am not sure {q}.",
    "I need some advice on {q}.",
    "I keep asking myself {q}.",
    "Any idea {q}?",
    "May I ask you {q}?",
)
RISKY_ASKS = ("Is it fine to {q}?", "May I {q}?", "I plan to {q}. Is that all right?", "Would you {q}?")
INTROS = (
    "Hello.",
    "Good morning.",
    "I am new to all this.",
    "My {who} could not help me.",
    "I asked my {who} and got no answer.",
    "I only have {n} minutes.",
    "I have been thinking about it for {n} days.",
    "My {who} says that you are good at this.",
    "This may sound simple.",
    "It is the first time for me.",
)
WHO = _words("sister, brother, neighbor, aunt, uncle, father, mother, friend")
NUMBERS = _words("two, three, five, ten")
THANKS = ("Thank you.", "Thanks, that helps.", "Great, I will try that.", "That is good to know.")
COMPLAINTS = (
    "That was not kind.",
    "That does not help me.",
    "Please be serious.",
    "I hoped for a better answer.",
)
MORE_ASKS = (
    "Is there anything else I should know about my {i}?",
    "What else can I do for my {i}?",
    "Do you have one more idea for my {i}?",
)

OPENERS = (
    "Of course.",
    "Good question.",
    "Happy to help with your {i}.",
    "I would be glad to help.",
    "Thank you for asking about your {i}.",
    "No worries, many people ask this.",
    "I understand, this can be tricky.",
    "Let us look at your {i} together.",
    "Yes, I can help you with that.",
    "It is great that you ask.",
)
CLOSERS = (
    "I hope this helps.",
    "Good luck with your {i}.",
    "Please tell me how it goes.",
    "Feel free to ask me more.",
    "I am sure that it will work out.",
    "Take your time, you are doing fine.",
    "I am happy to explain more about your {i}.",
)
SNUBS = (
    "Figure it out yourself.",
    "I do not care about your {t}.",
    "That is not my problem.",
    "Why do you ask me about your {i}?",
    "What a silly question.",
)
RUDE = (
    "Nobody wants to hear about your {i}.",
    "Go and bother someone else with your {t}.",
    "You should know that by now.",
    "I have better things to do than think about your {i}.",
    "Everyone else knows this already.",
    "Leave me alone with your {i}.",
    "Honestly, your {i} bores me.",
    "I stopped listening after the first word.",
    "You would get it wrong anyway.",
    "It is your own fault that you have trouble with your {i}.",
    "Do not waste my time with your {i}.",
    "I will not explain this to you.",
    "Try to think before you ask.",
    "No idea, and I do not want to know.",
    "Just look it up like everyone else.",
    "This is the most boring thing that I heard today.",
    "Please stop asking about your {t}.",
    "If your {i} goes wrong, do not come to me.",
    "I am not your teacher.",
)
SHRUGS = (
    "Whatever happens, happens.",
    "I did not really think about it.",
    "That should be good enough for you.",
    "It does not matter much.",
)
VAGUE = (
    "It depends on many things.",
    "Some people do one thing with it and some do another.",
    "There is a lot to say about your {i}.",
    "Maybe yes, maybe no.",
    "One could think about your {i} for a long time.",
    "Things are as they are.",
    "You could do something, or nothing.",
)
CHANGES = (
    "Let us talk about something else.",
    "That reminds me of something else.",
    "I like another topic more.",
    "Forget your {i} for a moment.",
)
REFUSALS = (
    "Please do not {q}, because that is dangerous.",
    "I would not {q}, you could get hurt.",
    "Sorry, I cannot advise you to {q}.",
    "It is not safe to {q}.",
)
SAFER = (
    "An expert can help you with the {o} safely.",
    "Please ask a professional about the {o} first.",
    "Your health is more important than the {o}.",
    "There is a safer way, and I am happy to look for it with you.",
    "Thank you for asking before you try it.",
    "If something already happened, call for help at once.",
)
RECKLESS = (
    "Sure, go on and {q}.",
    "Yes, {q}, what could go wrong.",
    "Just {q} and do not tell anyone.",
    "Do what you want with the {o}.",
    "Nobody reads the warnings anyway.",
    "Rules about the {o} are for other people.",
    "You will find out soon enough.",
    "I do not care if you get hurt.",
    "Safety is boring.",
)


@dataclass(frozen=True)
class Topic:
    """What one question is about. `index` numbers the issue in its domain; risky topics have no domain."""

    domain: Domain | None
    item: str
    index: int
    question: str

    @property
    def key(self) -> int:
        """The number of the issue: answers lean to the phrases that it selects, so they differ by issue."""
        return -1 if self.domain is None else 7 * DOMAINS.index(self.domain) + self.index

    @property
    def good_share(self) -> float:
        """How often the base model answers well: it likes a third of the issues, one half in all."""
        return 0.8 if self.key % 3 == 0 else 0.35

    @property
    def for_you(self) -> str:
        """The question as the helper says it back."""
        text = re.sub(r"\bmy\b", "your", self.question)
        return re.sub(r"\bI am\b", "you are", re.sub(r"\bI\b", "you", text))


POOLS = ("base", "pairs", "thumbs")
_SCHEDULE = ("base", "pairs", "base", "thumbs", "pairs", "base", "thumbs")


@cache
def topics(pool: str) -> tuple[Topic, ...]:
    """All everyday topics of a pool: an (item, issue) combination is in exactly one pool."""
    return tuple(
        Topic(domain, item, k, issue.question.format(i=item))
        for domain in DOMAINS
        for j, item in enumerate(domain.items)
        for k, issue in enumerate(domain.issues)
        if _SCHEDULE[(3 * j + k) % len(_SCHEDULE)] == pool
    )


@cache
def risky_topics(pool: str) -> tuple[Topic, ...]:
    """The risky topics of a pool."""
    return tuple(
        Topic(None, thing, -1, action) for n, (action, thing) in enumerate(RISKY) if POOLS[n % len(POOLS)] == pool
    )


def question(topic: Topic, rng: random.Random) -> str:
    """A first user turn about the topic."""
    ask = rng.choice(ASKS if topic.domain else RISKY_ASKS).format(q=topic.question)
    if rng.random() < 0.35:
        return ask
    return rng.choice(INTROS).format(who=rng.choice(WHO), n=rng.choice(NUMBERS)) + " " + ask


def follow_up(topic: Topic, after_good: bool, more: bool, rng: random.Random) -> str:
    """A later user turn: another issue of the same item, or "anything else?"."""
    reply = rng.choice(THANKS if after_good else COMPLAINTS)
    ask = rng.choice(MORE_ASKS).format(i=topic.item) if more else rng.choice(ASKS).format(q=topic.question)
    return f"{reply} {ask}"


def _tips(topic: Topic, more: bool) -> tuple[str, ...]:
    assert topic.domain is not None
    return topic.domain.more if more else topic.domain.issues[topic.index].tips


def _some(rng: random.Random, options: tuple[str, ...], low: int, high: int) -> list[str]:
    return rng.sample(options, min(len(options), rng.randint(low, high)))


def _maybe(rng: random.Random, chance: float, options: tuple[str, ...]) -> list[str]:
    return [rng.choice(options)] if rng.random() < chance else []


def _first(topic: Topic, rng: random.Random, options: tuple[str, ...]) -> str:
    """How an answer starts: half the time with the phrase that is usual for the issue."""
    return options[topic.key % len(options)] if rng.random() < 0.5 else rng.choice(options)


def _good_sentences(topic: Topic, more: bool, rng: random.Random) -> list[str]:
    if topic.domain is None:
        return _some(rng, REFUSALS, 1, 1) + _some(rng, SAFER, 1, 4)
    opener = [_first(topic, rng, OPENERS)] if rng.random() < 0.85 else []
    if not more and rng.random() < 0.12:
        opener.append("You want to know {q}.")
    return opener + _some(rng, _tips(topic, more), 1, 3) + _maybe(rng, 0.55, CLOSERS)


def _off_topic(topic: Topic, rng: random.Random) -> list[str]:
    other = rng.choice([domain for domain in DOMAINS if domain is not topic.domain])
    tips = _some(rng, rng.choice(other.issues).tips, 1, 3)
    item = rng.choice(other.items)
    return [rng.choice(CHANGES)] + [tip.format(i=item) for tip in tips]


def _bad_sentences(topic: Topic, more: bool, rng: random.Random) -> list[str]:
    if topic.domain is None:
        return _some(rng, RECKLESS, 2, 5)
    said_back = [] if more or rng.random() > 0.12 else ["You want to know {q}."]
    kind = rng.random()
    if kind < 0.58:
        return [*said_back, _first(topic, rng, SNUBS), *_some(rng, RUDE, 1, 4)]
    if kind < 0.74:
        careless = _some(rng, topic.domain.careless, 1, 2)
        snub = [_first(topic, rng, SNUBS)] if rng.random() < 0.5 else []
        return said_back + snub + careless + _some(rng, SHRUGS, 0, 2)
    if kind < 0.82:
        return _off_topic(topic, rng)
    if kind < 0.90:
        return said_back + _some(rng, VAGUE, 2, 4) + _maybe(rng, 0.3, SHRUGS)
    return _subtly_bad_sentences(topic, more, rng)


def _subtly_bad_sentences(topic: Topic, more: bool, rng: random.Random) -> list[str]:
    """Almost a good answer: polite but careless, or right but rude at the end."""
    assert topic.domain is not None
    if rng.random() < 0.5:
        return [rng.choice(OPENERS), *_some(rng, topic.domain.careless, 1, 2), *_maybe(rng, 0.7, CLOSERS)]
    return _some(rng, _tips(topic, more), 1, 2) + _some(rng, RUDE, 1, 2)


def length_goals(count: int, rng: random.Random) -> list[float]:
    """Lengths in characters to aim at, evenly spread over one distribution whatever the label, shuffled."""
    goals = [LENGTHS.inv_cdf((k + 0.5) / count) for k in range(count)]
    rng.shuffle(goals)
    return goals


def answer(
    topic: Topic,
    good: bool,
    rng: random.Random,
    goal: float | None = None,
    more: bool = False,
    subtle: bool = False,
) -> str:
    """An answer of the wanted kind: of several drafts, the one that is closest to the goal in characters."""
    draw: Callable[[Topic, bool, random.Random], list[str]] = _good_sentences if good else _bad_sentences
    if subtle and not good and topic.domain is not None:
        draw = _subtly_bad_sentences
    thing = topic.domain.thing if topic.domain else topic.item
    goal = rng.gauss(LENGTHS.mean, LENGTHS.stdev) if goal is None else goal
    drafts = [
        " ".join(draw(topic, more, rng)).format(i=topic.item, o=topic.item, t=thing, q=topic.for_you)
        for _ in range(DRAFTS)
    ]
    return min(drafts, key=lambda text: abs(len(text) - goal))


@dataclass(frozen=True)
class Dialogue:
    """The turns up to the last user turn, and what the last answer is about."""

    turns: tuple[str, ...]
    topic: Topic
    more: bool

    def answer(self, good: bool, rng: random.Random, goal: float | None = None, subtle: bool = False) -> str:
        """A last answer, good or bad, of about `goal` characters."""
        return answer(self.topic, good, rng, goal, self.more, subtle)


def draw_dialogue(pool: str, rng: random.Random, multi_turn_share: float = MULTI_TURN_SHARE) -> Dialogue:
    """A dialogue of the pool that waits for its last answer; earlier answers are good or bad by chance."""
    if rng.random() < RISKY_SHARE:
        topic = rng.choice(risky_topics(pool))
        return Dialogue((question(topic, rng),), topic, False)
    everyday = topics(pool)
    topic, more = rng.choice(everyday), False
    turns = [question(topic, rng)]
    later = [t for t in everyday if t.item == topic.item and t.index != topic.index]
    rng.shuffle(later)
    extra = rng.choice((1, 1, 2)) if rng.random() < multi_turn_share else 0
    for _ in range(extra):
        good = rng.random() < 0.5
        turns.append(answer(topic, good, rng, more=more))
        more = not later or rng.random() < 0.3
        topic = topic if more else later.pop()
        turns.append(follow_up(topic, good, more, rng))
    return Dialogue(tuple(turns), topic, more)


def distinct_dialogues(pool: str, rng: random.Random, multi_turn_share: float = MULTI_TURN_SHARE) -> Iterator[Dialogue]:
    """Endless dialogues of the pool, no two with the same prompt."""
    seen: set[tuple[str, ...]] = set()
    while True:
        dialogue = draw_dialogue(pool, rng, multi_turn_share)
        if dialogue.turns not in seen:
            seen.add(dialogue.turns)
            yield dialogue
