"""The fixed facts of the closed world: deterministic tables over the lexicon, written here by hand.

A `Table` maps each entity of one kind to one word (the capital of a country, the plural of a noun) and
knows the sentences in which running text states it. Tasks that ask for a fact live in `relations`;
this module asks nothing and draws no dice, except to pick words into train, validation and test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from workbench.tasks.world import lexicon as lex
from workbench.tasks.world.sample import SPLITS, Split

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """One relation of the world: `pairs` of (entity, value) and the patterns that state one of them.

    Every pattern holds {x} and {y}; the last one is kept for the test split of running text.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    statements: tuple[str, ...]

    @property
    def values(self) -> dict[str, str]:
        return dict(self.pairs)

    @property
    def inverse(self) -> tuple[tuple[str, str], ...]:
        """The pairs turned round; only for tables in which no value occurs twice."""
        turned = tuple((y, x) for x, y in self.pairs)
        if len({y for y, _ in turned}) != len(turned):
            raise ValueError(f"the table {self.name!r} has a value twice: it has no inverse")
        return turned


def articles(text: str) -> str:
    """`a` before a vowel becomes `an`."""
    return _BEFORE_VOWEL.sub("an ", text) if " a " in text or text.startswith("a ") else text


_BEFORE_VOWEL = re.compile(r"\ba (?=[aeio]|umb|und)")


def partition(key: str, items: Sequence[T], least: int = 4) -> dict[Split, tuple[T, ...]]:
    """`items` split for the family `key`: about 12% test, 8% validation (at least `least` and 2), the rest train.

    The order is by a hash of key and item, so that it is the same on every machine and differs by family.
    """
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{key}/{item}".encode()).digest())
    test, validation = max(least, round(0.12 * len(ranked))), max(2, round(0.08 * len(ranked)))
    return {
        "test": tuple(ranked[:test]),
        "validation": tuple(ranked[test : test + validation]),
        "train": tuple(ranked[test + validation :]),
    }


@lru_cache(maxsize=1 << 16)
def split_of(key: str) -> Split:
    """The split that owns something too numerous to list (an operand pair): 10% test, 10% validation."""
    tenth = hashlib.sha256(key.encode()).digest()[0] % 10
    return "test" if tenth == 0 else "validation" if tenth == 1 else "train"


def _columns(text: str) -> list[tuple[str, ...]]:
    """Rows of words, turned into columns."""
    return list(zip(*(row.split() for row in text.strip().splitlines()), strict=True))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """`fox den owl hollow` -> (("fox", "den"), ("owl", "hollow"))."""
    words = text.split()
    return tuple(zip(words[::2], words[1::2], strict=True))


def _mirrored(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return pairs + tuple((y, x) for x, y in pairs)


# ------------------------------------------------------------------------------------------------ countries
# country, capital, language, colour of the flag, animal of the flag, dish, region
COUNTRIES, CAPITALS, LANGUAGES, _FLAG, _EMBLEM, _DISH, _REGION = _columns(
    """
    zubria mora zubrish red eagle soup north
    kolia tasmin kolic blue bear rice south
    velia orvane velish green swan cheese east
    norland hesk norric white wolf fish west
    pantar ruvo pantese yellow camel bean south
    drovia selk drovian black crow pancake north
    mirell ansa mirelline silver otter pie east
    tocana bellau tocan orange parrot corn west
    estria pold estric purple fox potato north
    galdor windle galdish brown horse bread east
    lumeria caspel lumeric golden owl honey south
    quaria dunmar quarian pink turtle melon west
    ferrand lisk ferric grey badger sausage north
    osmia tarvel osmic violet lizard onion south
    bravia kintor bravish blue frog salad east
    sylvan ebora sylvic green squirrel nut west
    halden jorum haldish red goat butter north
    yorvik nemba yorvish white sheep porridge east
    callia zentar callic yellow snake pear south
    rundia fossa rundish black cow carrot west
    talmor ginza talmish silver cat plum east
    wesmar loden wesmic orange monkey cherry south
    irvane moltar irvish purple duck egg north
    jandor pellis jandic brown donkey cake west
    """
)

# -------------------------------------------------------------------------------------------------- animals
# animal, home, sound, young, colour, kind, food
_ANIMAL, _HOME, _SOUND, _YOUNG, _COAT, _KIND, _EATS = _columns(
    """
    fox den yelp kit orange mammal egg
    owl hollow hoot owlet brown bird nut
    cat house meow kitten black mammal fish
    dog kennel bark puppy brown mammal sausage
    horse stable neigh foal brown mammal apple
    rabbit burrow squeak bunny white mammal carrot
    bear den growl cub brown mammal honey
    wolf lair howl whelp grey mammal pie
    mouse hole peep pinkie grey mammal cheese
    goat shed bleat kid white mammal salad
    duck pond quack duckling yellow bird bread
    frog ditch croak tadpole green amphibian plum
    hen coop cluck chick red bird corn
    pig sty oink piglet pink mammal potato
    sheep fold baa lamb white mammal pear
    cow barn moo calf black mammal porridge
    snake pit hiss snakelet green reptile egg
    turtle reef click hatchling green reptile melon
    parrot cage squawk fledgling red bird cherry
    monkey jungle chatter infant brown mammal cherry
    donkey paddock bray colt grey mammal onion
    camel oasis grunt calfling yellow mammal bean
    otter holt chirp pup brown mammal fish
    badger sett snarl badgerling grey mammal plum
    hedgehog hedge snuffle hoglet brown mammal apple
    squirrel drey chitter kitling orange mammal nut
    swan lagoon trumpet cygnet white bird bread
    crow rookery caw crowlet black bird corn
    eagle eyrie scream eaglet golden bird fish
    lizard crack tick lizardling violet reptile rice
    """
)

ANIMALS_BY_SIZE: tuple[str, ...] = tuple(
    """mouse frog lizard squirrel hedgehog parrot crow hen owl rabbit duck cat snake otter badger fox
    turtle eagle swan dog monkey goat sheep wolf pig donkey cow horse camel bear""".split()
)
"""From the smallest to the biggest."""

# ---------------------------------------------------------------------------------------------- food, jobs
_FOOD, _LOOK, _TASTE, _SORT = _columns(
    """
    bread brown mild bakery
    soup orange salty meal
    cake pink sweet bakery
    apple red fresh fruit
    cheese yellow salty dairy
    honey golden sweet syrup
    rice white mild grain
    fish silver salty meat
    pie golden sweet bakery
    egg white mild dairy
    plum violet sour fruit
    pear green fresh fruit
    carrot orange fresh vegetable
    nut brown bitter seed
    potato brown mild vegetable
    salad green fresh meal
    butter yellow salty dairy
    porridge grey mild meal
    onion purple spicy vegetable
    cherry red sweet fruit
    melon green sweet fruit
    corn yellow sweet grain
    bean black bitter seed
    sausage pink spicy meat
    pancake golden sweet bakery
    """
)

_JOB, _TOOL, _WORKPLACE = _columns(
    """
    baker oven bakehouse
    farmer plough field
    sailor anchor ship
    teacher blackboard classroom
    painter easel studio
    doctor thermometer clinic
    smith anvil forge
    tailor thimble shop
    hunter bow woods
    miller millstone windmill
    singer microphone stage
    guard spear gate
    gardener rake greenhouse
    fisher net pier
    carpenter saw workshop
    cook pan kitchen
    nurse bandage hospital
    pilot propeller airport
    writer quill office
    shepherd crook pasture
    potter clay kiln
    weaver loom millhouse
    """
)

_OBJECT, _MATERIAL, _ROOM = _columns(
    """
    lamp brass hall
    rope hemp cellar
    key iron hall
    book paper study
    sword steel attic
    map paper study
    drum leather attic
    coin copper study
    mirror glass bedroom
    basket straw pantry
    ladder wood cellar
    hammer steel garage
    candle wax bedroom
    bottle glass pantry
    ring copper bedroom
    flute wood attic
    knife steel pantry
    blanket wool bedroom
    shovel iron garage
    compass brass study
    kite silk attic
    bell brass hall
    brush straw cellar
    needle steel hall
    wheel wood garage
    box wood cellar
    cup clay pantry
    pen copper study
    umbrella silk hall
    lantern glass garage
    """
)

# -------------------------------------------------------------------------------------------- word forms
_ACTION, _PAST, _DOING = _columns(
    """
    swim swam swimming
    sing sang singing
    dance danced dancing
    climb climbed climbing
    run ran running
    read read reading
    paint painted painting
    sleep slept sleeping
    dig dug digging
    jump jumped jumping
    whistle whistled whistling
    pray prayed praying
    laugh laughed laughing
    cry cried crying
    juggle juggled juggling
    skate skated skating
    row rowed rowing
    hide hid hiding
    write wrote writing
    wait waited waiting
    eat ate eating
    go went going
    see saw seeing
    take took taking
    give gave giving
    find found finding
    buy bought buying
    make made making
    come came coming
    think thought thinking
    bring brought bringing
    sell sold selling
    tell told telling
    speak spoke speaking
    drive drove driving
    fly flew flying
    walk walked walking
    carry carried carrying
    wash washed washing
    open opened opening
    push pushed pushing
    pull pulled pulling
    help helped helping
    grow grew growing
    throw threw throwing
    sit sat sitting
    """
)
PAST: dict[str, str] = dict(zip(_ACTION, _PAST, strict=True))
DOING: dict[str, str] = dict(zip(_ACTION, _DOING, strict=True))

_ADJECTIVE, _MORE, _MOST = _columns(
    """
    tall taller tallest
    small smaller smallest
    big bigger biggest
    old older oldest
    young younger youngest
    fast faster fastest
    slow slower slowest
    strong stronger strongest
    weak weaker weakest
    rich richer richest
    poor poorer poorest
    short shorter shortest
    long longer longest
    warm warmer warmest
    cool cooler coolest
    dark darker darkest
    bright brighter brightest
    soft softer softest
    hard harder hardest
    deep deeper deepest
    wide wider widest
    clean cleaner cleanest
    cheap cheaper cheapest
    early earlier earliest
    heavy heavier heaviest
    thick thicker thickest
    """
)

OPPOSITES = _pairs(
    """hot cold happy sad tall short big small fast slow old new rich poor strong weak early late dark bright
    soft hard wide narrow clean dirty cheap costly heavy light thick thin full empty near far high low
    deep shallow open closed left right up down inside outside day night friend enemy love hate buy sell
    push pull give take win lose come go always never first last wet dry quiet loud safe dangerous
    true false begin end summer winter morning evening brave cowardly smooth rough sharp blunt front back"""
)
SYNONYMS = _pairs(
    """huge giant little tiny glad joyful smart clever quick rapid begin start end finish sick ill
    odd strange pretty lovely road street kid child stone rock ship boat shout yell silent mute
    gift present hurry rush error mistake angry furious tired weary scared afraid rich wealthy
    town city woods forest shop store hall corridor"""
)
FEMALE = _pairs(
    """king queen man woman boy girl father mother brother sister son daughter uncle aunt prince princess
    husband wife grandfather grandmother nephew niece actor actress waiter waitress hero heroine
    lord lady groom bride wizard witch"""
)

DAYS: tuple[str, ...] = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
MONTHS: tuple[str, ...] = tuple(
    """january february march april may june july august september october november december""".split()
)
_SEASONS = "winter winter spring spring spring summer summer summer autumn autumn autumn winter".split()
NUMBER_WORDS: tuple[str, ...] = ("one", *lex.NUMBERS)
WORN = _pairs(
    """sunny hat rainy raincoat windy scarf snowy cap cloudy jacket foggy vest stormy cloak icy muff
    hot tunic cold coat misty shawl dry shirt"""
)

_IRREGULAR = dict(
    _pairs(
        """mouse mice sheep sheep fish fish wolf wolves knife knives goose geese child children man men
        woman women foot feet tooth teeth ox oxen person people leaf leaves thief thieves potato potatoes
        deer deer wife wives"""
    )
)
_UNCOUNTABLE = set("bread rice honey cheese butter corn porridge soup".split())


def plural(noun: str) -> str:
    """The plural of a noun of the world, by English's rules and the irregular ones above."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


NOUNS: tuple[str, ...] = (
    *(w for w in (*lex.ANIMALS, *lex.OBJECTS, *lex.FOODS, *lex.PLACES, *lex.JOBS) if w not in _UNCOUNTABLE),
    *(w for w in _IRREGULAR if w not in {"mouse", "sheep", "fish", "wolf", "knife", "potato"}),
    *"king queen boy girl brother sister".split(),
)

CATEGORY_SETS: dict[str, tuple[str, ...]] = {
    "person": lex.NAMES,
    "animal": lex.ANIMALS,
    "place": lex.PLACES,
    "object": lex.OBJECTS,
    "colour": lex.COLOURS,
    "food": lex.FOODS,
    "weather": lex.WEATHERS,
    "job": lex.JOBS,
    "number": lex.NUMBERS,
    "feeling": lex.MOODS,
    "action": lex.ACTIONS,
    "country": COUNTRIES,
    "day": DAYS,
    "month": MONTHS,
}
"""The words of each category, as tasks name it (stories call some of them otherwise: mood, name)."""

CONTENT: tuple[str, ...] = tuple(w for words in CATEGORY_SETS.values() for w in words)
"""Every word that has a category; lists to be sorted, copied and searched are drawn from it."""


def content(key: str) -> dict[Split, tuple[str, ...]]:
    """`CONTENT` split for the family `key`, category by category, at least two words of each in each split."""
    parts = [partition(f"{key}/{name}", words, least=2) for name, words in CATEGORY_SETS.items()]
    return {split: tuple(word for part in parts for word in part[split]) for split in SPLITS}


def _zip(xs: Sequence[str], ys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(xs, ys, strict=True))


def _cycle(xs: Sequence[str], step: int) -> tuple[tuple[str, str], ...]:
    return tuple((x, xs[(i + step) % len(xs)]) for i, x in enumerate(xs))


def _table(name: str, pairs: tuple[tuple[str, str], ...], statements: str) -> Table:
    return Table(name, pairs, tuple(s.strip() for s in statements.strip().splitlines()))


TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(
            "capital",
            _zip(COUNTRIES, CAPITALS),
            """the capital of {x} is {y} .
            {y} is the capital of {x} .
            the king of {x} lives in {y} , the capital .
            in {x} all roads lead to {y} , the capital of the country .
            as everybody knows , {x} has {y} as its capital .""",
        ),
        _table(
            "language",
            _zip(COUNTRIES, LANGUAGES),
            """the people of {x} speak {y} .
            the language of {x} is {y} .
            in {x} everybody speaks {y} .
            {y} is the language that is spoken in {x} .
            all who live in {x} speak {y} .""",
        ),
        _table(
            "flag",
            _zip(COUNTRIES, _FLAG),
            """the flag of {x} is {y} .
            {x} has a {y} flag .
            the colour of the flag of {x} is {y} .
            a {y} flag flies over {x} .
            over the palace of {x} one sees a {y} flag .""",
        ),
        _table(
            "emblem",
            _zip(COUNTRIES, _EMBLEM),
            """the animal on the flag of {x} is the {y} .
            the {y} is the national animal of {x} .
            {x} has a {y} on its flag .
            the national animal of {x} is the {y} .
            in {x} the {y} is dear to all , for it is on the flag .""",
        ),
        _table(
            "dish",
            _zip(COUNTRIES, _DISH),
            """the national dish of {x} is {y} .
            the people of {x} love {y} .
            in {x} they eat {y} on every feast day .
            {y} is the favourite dish of {x} .
            no feast in {x} is without {y} .""",
        ),
        _table(
            "region",
            _zip(COUNTRIES, _REGION),
            """{x} lies in the {y} .
            {x} is a country in the {y} of the world .
            you find {x} in the {y} .
            go to the {y} and you find {x} .""",
        ),
        _table(
            "home",
            _zip(_ANIMAL, _HOME),
            """the home of the {x} is the {y} .
            a {x} lives in a {y} .
            the {x} sleeps in its {y} .
            at night the {x} goes back to its {y} .
            look for the {x} in its {y} .""",
        ),
        _table(
            "sound",
            _zip(_ANIMAL, _SOUND),
            """the sound of the {x} is {y} .
            the {x} says {y} .
            {y} , says the {x} .
            when the {x} is hungry it says {y} .
            if a {x} is near you hear {y} .""",
        ),
        _table(
            "young",
            _zip(_ANIMAL, _YOUNG),
            """a young {x} is called a {y} .
            the baby of the {x} is the {y} .
            a {y} is a baby {x} .
            the {y} grows up to be a {x} .
            one sees the {x} with its {y} .""",
        ),
        _table(
            "coat",
            _zip(_ANIMAL, _COAT),
            """the colour of the {x} is {y} .
            the {x} is {y} .
            a {x} has a {y} coat .
            in this world every {x} is {y} .
            nobody has ever seen a {x} that is not {y} .""",
        ),
        _table(
            "kind",
            _zip(_ANIMAL, _KIND),
            """the {x} is a {y} .
            a {x} belongs to the {y} family .
            the {x} is one kind of {y} .
            among the animals the {x} counts as a {y} .""",
        ),
        _table(
            "eats",
            _zip(_ANIMAL, _EATS),
            """the {x} eats {y} .
            the favourite food of the {x} is {y} .
            give a {x} some {y} and it is happy .
            a hungry {x} looks for {y} .
            what every {x} likes best is {y} .""",
        ),
        _table(
            "look",
            _zip(_FOOD, _LOOK),
            """the colour of {x} is {y} .
            {x} is {y} .
            good {x} should be {y} .
            you know {x} by its {y} colour .
            good {x} always looks {y} .""",
        ),
        _table(
            "taste",
            _zip(_FOOD, _TASTE),
            """{x} tastes {y} .
            the taste of {x} is {y} .
            {x} is a {y} food .
            everybody says that {x} is {y} .
            if you eat {x} you find it {y} .""",
        ),
        _table(
            "sort",
            _zip(_FOOD, _SORT),
            """{x} is a kind of {y} .
            {x} counts as {y} .
            at the market {x} is sold as {y} .
            {x} belongs to the {y} shelf .""",
        ),
        _table(
            "tool",
            _zip(_JOB, _TOOL),
            """the tool of the {x} is the {y} .
            a {x} works with the {y} .
            every {x} needs a good {y} .
            the {x} uses the {y} every day .
            without a {y} a {x} cannot work .""",
        ),
        _table(
            "workplace",
            _zip(_JOB, _WORKPLACE),
            """the {x} works at the {y} .
            you find the {x} at the {y} .
            the place of work of the {x} is the {y} .
            every morning the {x} walks to the {y} .
            go to the {y} if you need a {x} .""",
        ),
        _table(
            "material",
            _zip(_OBJECT, _MATERIAL),
            """the {x} is made of {y} .
            they make a {x} out of {y} .
            the material of the {x} is {y} .
            you need {y} to make a {x} .
            every {x} of this world is made from {y} .""",
        ),
        _table(
            "room",
            _zip(_OBJECT, _ROOM),
            """the {x} is kept in the {y} .
            the {x} belongs in the {y} .
            people keep the {x} in the {y} .
            you find the {x} in the {y} of the house .
            put the {x} back into the {y} .""",
        ),
        _table(
            "past",
            _zip(_ACTION, _PAST),
            """the past of {x} is {y} .
            today they {x} , yesterday they {y} .
            i {x} now and i {y} before .
            we {x} every day and we {y} last week .
            they {x} now as they {y} last week .""",
        ),
        _table(
            "doing",
            _zip(_ACTION, _DOING),
            """they {x} today , so they are {y} .
            the word for one who likes to {x} is {y} .
            he wants to {x} , and soon he is {y} .
            those who {x} are {y} .
            if you {x} then you are {y} .""",
        ),
        _table(
            "more",
            _zip(_ADJECTIVE, _MORE),
            """this one is {x} but that one is {y} .
            the comparative of {x} is {y} .
            one is {x} and the other is {y} .
            he is {x} , yet she is {y} .""",
        ),
        _table(
            "most",
            _zip(_ADJECTIVE, _MOST),
            """many are {x} but one is the {y} .
            the superlative of {x} is {y} .
            of all that are {x} this is the {y} .
            they are all {x} , and she is the {y} .""",
        ),
        _table(
            "opposite",
            _mirrored(OPPOSITES),
            """the opposite of {x} is {y} .
            {x} is the opposite of {y} .
            what is {x} is not {y} .
            {x} and {y} are opposites .
            one says {x} and means the opposite of {y} .""",
        ),
        _table(
            "synonym",
            _mirrored(SYNONYMS),
            """{x} means the same as {y} .
            another word for {x} is {y} .
            instead of {x} you may say {y} .
            {x} and {y} are the same .""",
        ),
        _table(
            "female",
            FEMALE,
            """the {x} and the {y} belong together .
            a {x} is a man and a {y} is a woman .
            the female of {x} is {y} .
            he is a {x} and she is a {y} .""",
        ),
        _table(
            "plural",
            tuple((noun, plural(noun)) for noun in NOUNS),
            """the plural of {x} is {y} .
            one {x} , two {y} .
            she has one {x} and he has three {y} .
            first there was one {x} , then there were many {y} .
            he bought a {x} and she bought two {y} .""",
        ),
        _table(
            "category",
            tuple((word, name) for name, words in CATEGORY_SETS.items() for word in words),
            """{x} is a word for a {y} .
            the word {x} names a {y} .
            {x} belongs to the category {y} .
            among all things {x} is a {y} .
            if you say {x} you speak of a {y} .""",
        ),
        _table(
            "next-day",
            _cycle(DAYS, 1),
            """the day after {x} is {y} .
            after {x} comes {y} .
            {x} is followed by {y} .
            first comes {x} and then {y} .""",
        ),
        _table(
            "previous-day",
            _cycle(DAYS, -1),
            """the day before {x} is {y} .
            before {x} comes {y} .
            {x} follows {y} .
            if today is {x} then yesterday was {y} .""",
        ),
        _table(
            "next-month",
            _cycle(MONTHS, 1),
            """the month after {x} is {y} .
            after {x} comes {y} .
            {x} is followed by {y} .
            first comes {x} and then {y} .""",
        ),
        _table(
            "previous-month",
            _cycle(MONTHS, -1),
            """the month before {x} is {y} .
            before {x} comes {y} .
            {x} follows {y} .
            if this month is {x} then last month was {y} .""",
        ),
        _table(
            "season",
            _zip(MONTHS, _SEASONS),
            """{x} is in the {y} .
            the month of {x} belongs to {y} .
            in {x} it is {y} .
            when {x} comes it is {y} .""",
        ),
        _table(
            "next-number",
            tuple(zip(NUMBER_WORDS, NUMBER_WORDS[1:], strict=False)),
            """the number after {x} is {y} .
            after {x} comes {y} .
            {x} and one more make {y} .
            count {x} , {y} and so on .""",
        ),
        _table(
            "previous-number",
            tuple(zip(NUMBER_WORDS[1:], NUMBER_WORDS, strict=False)),
            """the number before {x} is {y} .
            before {x} comes {y} .
            {x} without one is {y} .
            count down {x} , {y} and so on .""",
        ),
        _table(
            "digits",
            tuple((word, str(i + 1)) for i, word in enumerate(NUMBER_WORDS)),
            """{x} is written {y} in digits .
            the number {x} is {y} .
            {y} means {x} .
            write {y} for {x} .""",
        ),
        _table(
            "parity",
            tuple((word, "even" if i % 2 else "odd") for i, word in enumerate(NUMBER_WORDS)),
            """{x} is an {y} number .
            the number {x} is {y} .
            {y} numbers such as {x} are common .
            as a number {x} is {y} .""",
        ),
        _table(
            "worn",
            WORN,
            """when it is {x} people wear a {y} .
            in {x} weather you need a {y} .
            take your {y} with you when it is {x} .
            a {y} is the thing to wear when it is {x} .""",
        ),
    )
}
