"""The small world of the English texts (names, objects, animals, settings), and descriptions of it.

A description is about a place, an animal, a room, a season, a meal, a day's work or a machine. Each of these
has a frame, a list of steps with several wordings each; `fill` puts the parts in place. `stories` uses the
same world.
"""

import random
import re
from dataclasses import dataclass

Wordings = list[str]
Plot = list[Wordings]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")


def items(text: str) -> list[str]:
    """The parts of a list written as "one; two; three"."""
    return text.split("; ")


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def fill(text: str, values: dict[str, str], rng: random.Random) -> str:
    """Make every choice `[a|b]` of a wording and put the values of its `{keys}` in place.

    Args:
        text: the wording; a value may itself hold choices and keys.
        values: what each key stands for; `{Key}` is the value of `key` with a capital letter.
        rng: source of the choices.

    Returns:
        The text with single spaces and a capital letter at the start of each sentence.

    Raises:
        KeyError: a key of the wording has no value.
    """
    capitals = {key.capitalize(): value[:1].upper() + value[1:] for key, value in values.items()}
    while "[" in text or "{" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
        text = text.format_map(values | capitals)
    text = " ".join(text.split())
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


NAMES = {
    "she": items("Anna; Mia; Lily; Rosa; Emma; Nora; Zoe; Lucy; Maya; Ella; Ruth; Mei; Sara; Clara; Ivy; "
                 "Ada"),
    "he": items("Tom; Ben; Max; Leo; Jack; Omar; Finn; Hugo; Paul; Noah; Ravi; Wei; Peter; Oscar; Henry; "
                "Luke"),
    "they": items("Sam; Robin; Alex; Kim; Charlie; Lee"),
}
PRONOUNS = {  # subject: object, possessive, reflexive, past of "be", and what such a person is called
    "she": ("her", "her", "herself", "was", "girl"),
    "he": ("him", "his", "himself", "was", "boy"),
    "they": ("them", "their", "themselves", "were", "child"),
    "it": ("it", "its", "itself", "was", "animal"),
}
ANIMAL_NAMES = items("Pip; Momo; Rusty; Dot; Coco; Patch; Bean; Pepper; Sunny; Hazel; Bobo; Nutty; Fuzzy; "
                    "Kiki; Tiki")
WEATHER = {
    "spring": items("warm; fresh; windy; bright; rainy; mild; gray"),
    "summer": items("hot; sunny; warm; bright; clear; quiet; golden"),
    "autumn": items("cool; windy; gray; golden; clear; rainy; quiet"),
    "winter": items("cold; snowy; white; gray; icy; dark; clear"),
}
OBJECTS = {noun: adjectives.split() for noun, adjectives in {
    "key": "small old silver", "kite": "red blue paper", "ball": "red yellow rubber", "hat": "straw blue new",
    "scarf": "warm red striped", "basket": "round brown big", "book": "thick blue old",
    "pencil": "yellow short green",
    "bag": "brown heavy blue", "coin": "gold shiny old", "shell": "pink white shiny",
    "boat": "toy little wooden",
    "bucket": "red tin little", "spoon": "wooden big silver", "cup": "blue white yellow",
    "bell": "brass small shiny",
    "map": "old paper big", "letter": "white folded long", "ring": "gold silver thin",
    "whistle": "tin red loud",
    "flute": "wooden long old", "drum": "small round red", "doll": "rag little old",
    "button": "green round big",
    "glove": "blue warm soft", "umbrella": "yellow black big", "watch": "gold old small",
    "ribbon": "red long silk",
    "box": "wooden little green", "feather": "white long blue", "stone": "smooth green round",
    "lantern": "paper old red",
    "sled": "wooden new fast", "blanket": "soft warm green", "picture": "small old funny",
    "clock": "round little old",
    "ticket": "blue train paper", "notebook": "red thin new", "bottle": "green glass old",
    "rope": "long strong thin",
    "brush": "thin soft new", "apron": "white blue clean", "lamp": "small bright old",
    "boot": "brown rubber left",
    "necklace": "gold thin pretty", "toy car": "fast blue little", "bowl": "blue big wooden",
    "skate": "white old new",
}.items()}


@dataclass(frozen=True)
class Setting:
    """Where a story takes place and what fits there. A part after " / " answers to the part before it."""

    seasons: str
    places: list[str]  # preposition first
    things: list[str]  # keys of OBJECTS
    spots: list[str]  # where a thing can hide
    people: list[str]  # who may help
    details: list[str]
    plays: list[str]  # what one loves to do there
    rescues: list[str]  # creature in trouble / what one does about it
    makes: list[str]  # what one makes / what is missing / what does instead
    skills: list[str]  # what one learns / how it goes wrong / how it goes well
    sounds: list[str]  # a strange sound / what made it
    shelters: list[str]  # from a storm; none indoors
    clues: list[str]  # what leads home; none indoors


SETTINGS = {
    "forest": Setting(
        "spring summer autumn", items("in the pine forest; in the deep forest; on the forest path; "
                            "by the forest stream"),
        items("key; basket; whistle; map; flute; glove; hat; feather; lantern"),
        items("under a fallen tree; in a pile of leaves; behind a big oak; on a soft bed of moss"),
        items("old woodcutter; tall hunter; kind forest guard; mushroom seller"),
        items("The tall trees smelled of pine.; Light fell through the leaves like gold.; "
              "An owl slept on a high branch.; "
              "The ground was soft with moss."),
        items("climb trees; look for mushrooms; listen to the birds; pick wild berries; "
              "follow animal tracks"),
        items("fox had one leg caught under a branch / lifted the branch with a stick; "
              "rabbit had fallen into a deep hole / "
              "put a long branch into the hole; "
              "squirrel had hurt its foot on a stone / tied a soft leaf around the foot"),
        items("a tree house / nails / strong rope; a whistle / a knife / a sharp stone; "
              "a bed for a fox / straw / dry leaves"),
        items("climb the big oak / slipped and fell into the leaves / sat on the highest branch; "
              "call like an owl / "
              "only made a funny noise / heard a real owl answer"),
        items("a soft knock / a bird looking for food in the bark; "
              "a low cry / a young owl that wanted its mother; "
              "a quick scratching / a squirrel hiding nuts"),
        items("in a hollow tree; in an old hut; under a wide pine"),
        items("the sound of the stream; the smell of smoke; a row of red mushrooms")),
    "sea": Setting(
        "spring summer autumn", items("on the beach; by the sea; at the harbor; on the little island"),
        items("shell; boat; bucket; hat; bottle; rope; ring; stone; kite"),
        items("under an old boat; between two rocks; in the wet sand; behind a pile of nets"),
        items("old sailor; friendly fisherman; captain of a small ship; harbor guard"),
        items("The waves were small and green.; The air tasted of salt.; White gulls flew over the water.; "
              "Far away, a ship moved slowly."),
        items("look for shells; swim in the waves; build towers of sand; watch the ships; "
              "jump over the waves"),
        items("turtle was caught in an old net / pulled the net away; "
              "crab was shut in a glass jar / opened the jar; "
              "seal lay on the hot sand / poured water on its back until the sea came up"),
        items("a toy ship / a sail / an old shirt; a castle of sand / a flag / a long feather; "
              "a shell necklace / string / a thin piece of rope"),
        items("swim / swallowed a lot of salt water / swam all the way to the big rock; "
              "row a boat / went around in circles / "
              "rowed straight to the island; "
              "catch a fish / pulled up only an old boot / caught a big silver fish"),
        items("a strange song / the wind in an empty shell; a loud splash / a dolphin at play; "
              "a quick knock / a crab walking in a tin"),
        items("in the lighthouse; under an old boat; in a dry cave"),
        items("the light of the lighthouse; the line of the shore; the cry of the gulls")),
    "school": Setting(
        "spring autumn winter", items("at the village school; in the classroom; in the music room; "
                            "at the new school"),
        items("pencil; book; bag; notebook; ball; picture; brush; drum; glove"),
        items("under a desk; behind the door; on a high shelf; in a box of chalk"),
        items("new teacher; school cook; music teacher; old gardener of the school"),
        items("Bright pictures hung on the walls.; The bell rang through the long hall.; "
              "The room smelled of chalk.; "
              "Someone was singing next door."),
        items("read aloud; draw animals; play the drum; do sums; sing with the class"),
        items("bird had flown in and could not get out / opened every window; "
              "mouse was shut in a desk / opened the desk slowly; "
              "kitten sat on a high shelf and cried / brought a chair and took it down"),
        items("a paper dragon / glue / a little flour and water; "
              "a big map / green paint / a lot of small leaves; "
              "a funny mask / string / a shoe lace"),
        items("play the flute / made a noise like a cold duck / played a whole song; "
              "spell long words / mixed up the letters / "
              "spelled every word on the list; "
              "paint a horse / painted something like a potato / painted a fine brown horse"),
        items("a small scratching / a mouse eating an old sandwich; a long hum / the new heater; "
              "a strange whisper / two small pupils learning a poem"), [], []),
    "kitchen": Setting(
        "spring autumn winter", items("in the kitchen; in the warm bakery; at the big kitchen table; "
                            "in the small restaurant"),
        items("spoon; cup; apron; bowl; bell; basket; clock; ring; button"),
        items("behind the stove; under the table; in the flour; inside a big pot"),
        items("cook; old baker; friendly waiter; milk seller"),
        items("The whole room smelled of bread.; A pot of soup was singing on the stove.; "
              "The windows were warm and wet.; "
              "Fresh onions lay on the table."),
        items("bake bread; cut vegetables; taste the soup; make pancakes; wash the plates and sing"),
        items("mouse was stuck in a jar / turned the jar on its side; "
              "kitten was covered with flour / cleaned it with a soft cloth; "
              "bee was caught in the honey / gave it a spoon to climb on"),
        items("an apple cake / sugar / sweet honey; a pot of soup / salt / a piece of hard cheese; "
              "a pie / apples / some ripe pears"),
        items("bake bread / took out a loaf as hard as stone / baked a soft golden loaf; "
              "make noodles / made only a sticky ball / "
              "made long thin noodles; turn a pancake / threw it on the floor / caught it in the pan"),
        items("a soft noise / a forgotten pot of jam; a light tapping / the rain on a tin plate; "
              "a small crash / the cat stealing a fish"), [], []),
    "farm": Setting(
        "spring summer autumn", items("on the farm; in the big barn; in the wheat field; by the duck pond"),
        items("bucket; hat; basket; rope; bell; boot; blanket; whistle; watch"),
        items("in the hay; under the old cart; behind the hen house; beside the well"),
        items("old farmer; farm girl; young shepherd; animal doctor"),
        items("The cows stood in the long grass.; A rooster called from the roof.; The hay smelled sweet.; "
              "Fat ducks swam on the pond."),
        items("feed the hens; ride on the cart; brush the horse; count the sheep; jump into the hay"),
        items("lamb was stuck in the fence / pushed the wires apart; "
              "duckling could not climb out of a ditch / "
              "made a bridge from a board; calf was lost in the tall wheat / led it home with a carrot"),
        items("a scarecrow / a hat / an old bucket; a house for the hens / boards / the door of an old cart; "
              "a cart for the dog / wheels / four round lids"),
        items("milk a cow / got more milk on the floor than in the bucket / filled the whole bucket; "
              "ride the pony / fell off into the mud / rode around the whole field; "
              "drive the sheep / ran in the wrong direction / "
              "brought every sheep home"),
        items("a deep snore / the fat pig asleep in the hay; "
              "a thin peep / a chick that had just left its egg; "
              "a heavy knock / the horse kicking its door"),
        items("in the barn; under the cart; in the hen house"),
        items("the call of the rooster; the tracks of the cart; the long stone wall")),
    "city": Setting(
        "spring summer autumn", items("in the city park; on the busy street; at the train station; "
                            "in the old town square"),
        items("key; umbrella; ticket; bag; coin; letter; watch; ball; toy car"),
        items("under a bench; beside a lamp post; behind a flower stand; near the fountain"),
        items("bus driver; friendly policeman; street singer; newspaper seller"),
        items("Cars and bikes rolled by.; A street singer played an old song.; "
              "The windows shone in the light.; "
              "Doves walked around the fountain."),
        items("watch the trains; ride a bike; feed the doves; count the red buses; "
              "listen to the street music"),
        items("kitten sat high in a tree and cried / climbed up and carried it down; "
              "dove had string around its leg / "
              "took the string off; puppy stood alone in the street / kept it safe until its owner came"),
        items("a fast toy car / wheels / four big buttons; a street show / a drum / an empty box; "
              "a kite / string / a long ribbon"),
        items("ride a bike / rode straight into a bush / rode twice around the square; "
              "skate / sat down hard on the street / "
              "skated past the fountain; whistle / blew and made no sound / whistled a whole song"),
        items("a sad song / an old man playing the violin; a loud cry / the door of a bus; "
              "a quick step / a dog running after a ball"),
        items("in the station; under a shop roof; in a small cafe"),
        items("the bells of the big clock; the signs at the corners; the tall green tower")),
    "mountain": Setting(
        "spring summer autumn", items("in the mountain village; on the mountain path; by the mountain lake; "
                            "at the stone bridge"),
        items("bell; scarf; map; flute; stone; rope; boot; blanket; lantern"),
        items("under the stone bridge; behind a rock; beside the path; in the tall grass"),
        items("young shepherd; mountain guide; old goat keeper; postman"),
        items("The tops of the mountains were white.; Goat bells rang in the distance.; "
              "The air was thin and clean.; "
              "A cloud sat on the highest rock."),
        items("watch the eagles; climb the rocks; walk with the goats; shout and hear the echo; "
              "look at the stars"),
        items("goat stood on a narrow rock / held out fresh grass and led it down; "
              "lamb had fallen between two stones / "
              "moved one stone away; eagle had a thorn in its wing / pulled out the thorn"),
        items("a small bridge / boards / a fallen tree; a flute / wood / a piece of dry grass; "
              "a warm coat / buttons / small bones"),
        items("climb the gray rock / slid back again and again / stood on top and saw the whole valley; "
              "play the flute / made the goats run away / made the goats come near; "
              "read a map / walked in a circle / "
              "led everyone to the lake"),
        items("a deep noise / stones rolling down the hill; a clear answer / the echo of the valley; "
              "a thin bell / a lost goat on the rocks"),
        items("in a cave; in a shepherd's hut; under the stone bridge"),
        items("the sound of goat bells; the little river; the piles of white stones")),
    "library": Setting(
        "spring summer autumn winter",
        items("in the library; in the reading room; in the old book shop; at the town museum"),
        items("book; map; letter; pencil; scarf; lamp; picture; box; umbrella"),
        items("between two thick books; on the top shelf; under a soft chair; behind a row of maps"),
        items("old librarian; book seller; young writer; window cleaner"),
        items("It was so quiet that one could hear a page turn.; The shelves were higher than a tall man.; "
              "Dust danced in the light.; A clock ticked on the wall."),
        items("read about ships; look at old maps; sit by the window with a book; find new words; "
              "read about dragons"),
        items("bird had lost its way between the shelves / opened the big window; "
              "mouse was shut in a box / lifted the lid; "
              "kitten was asleep on a dangerous shelf / brought the ladder and took it down"),
        items("a small book / paper / old envelopes; a reading corner / chairs / soft cushions"),
        items("read the hardest book / stopped at every second word / read it from the first page to the "
              "last; "
              "tell a story / forgot the end / made the whole room laugh; "
              "write a poem / threw away ten pages / read it aloud to everyone"),
        items("a dry noise / a mouse making a bed of paper; a deep tick / an old clock in a box; "
              "a low hum / a bee at the window"), [], []),
    "garden": Setting(
        "spring summer", items("in the garden; under the apple tree; by the rose bush; "
                            "in the vegetable garden"),
        items("ring; doll; ball; glove; bucket; ribbon; spoon; button; necklace"),
        items("under a big leaf; between the carrots; in the rose bush; beside the old well"),
        items("gardener; old neighbor; young neighbor; flower seller"),
        items("Bees hummed over the flowers.; The roses were red and yellow.; "
              "A snail climbed up a wet leaf.; "
              "The apple tree made a cool shade."),
        items("water the flowers; dig for worms; pick ripe tomatoes; watch the butterflies; "
              "swing under the tree"),
        items("hedgehog was stuck in a flower pot / turned the pot over; "
              "butterfly had wet wings / carried it to a warm stone; "
              "bird had fallen from its nest / put it back with both hands"),
        items("a swing / a seat / an old board; a house for birds / a roof / half of a pot; "
              "a flower crown / roses / yellow daisies"),
        items("grow tomatoes / gave the plants too much water / picked a full bowl of red tomatoes; "
              "walk on the wall / fell into the cabbage / walked from one end to the other; "
              "jump with a rope / caught both feet in it / jumped a hundred times"),
        items("a loud buzz / a fat bee inside a flower; a soft noise / a snail eating the cabbage; "
              "a quick scratching / a hedgehog under the leaves"),
        items("in the garden house; under a wide leaf roof; on the porch"),
        items("the smell of the roses; the long green fence; the light in the kitchen window")),
    "snow": Setting(
        "winter", items("on the snowy hill; by the frozen lake; in the white field; by the snowy wood"),
        items("sled; scarf; glove; lantern; skate; hat; coin; drum; blanket"),
        items("under the snow; behind a snowman; beside a frozen bush; in an icy ditch"),
        items("sled maker; old ice fisherman; tea seller; old neighbor"),
        items("Snow lay on every roof.; The ice shone like glass.; Every breath made a small cloud.; "
              "The world was white and still."),
        items("ride a sled; build a snowman; skate on the ice; throw snowballs; drink hot tea"),
        items("bird was too cold to fly / held it in two warm hands; "
              "deer was stuck in the deep snow / dug a path with a board; "
              "puppy was afraid to cross the ice / led it back step by step"),
        items("a snowman / a carrot / a red pencil; a sled / a seat / an old tray; "
              "a snow house / a door / a thick blanket"),
        items("skate / fell on the ice three times / made a big circle on the ice; "
              "ride the fast sled / rolled into the snow / "
              "rode all the way down the hill; "
              "build a snow house / watched the roof fall in / sat inside and drank tea"),
        items("a sharp crack / the ice on the lake; a soft knock / snow falling from a tree; "
              "a tiny bell / the bells on a sled"),
        items("in a small hut; behind a wall of snow; in the warm market hall"),
        items("the tracks in the snow; the lights of the market; the row of dark trees")),
    "river": Setting(
        "spring summer autumn", items("by the river; on the wooden bridge; at the old mill; by the lake"),
        items("boat; bucket; boot; hat; bottle; stone; rope; whistle; coin"),
        items("between the stones; under the bridge; in the tall reeds; behind the mill"),
        items("old miller; old fisherman; boat builder"),
        items("The water was clear and quick.; Blue dragonflies flew over the reeds.; "
              "The mill wheel turned slowly.; "
              "A fish jumped and made a ring."),
        items("throw flat stones; catch small fish; cross the river on the stones; sail paper boats; "
              "look for frogs"),
        items("duckling was caught in the reeds / bent the reeds apart; "
              "frog was shut in a bottle / opened the bottle; "
              "beaver had a piece of wire around its tail / took the wire off"),
        items("a raft / rope / strong grass; a fishing rod / a hook / a bent nail; "
              "a paper boat / paper / a big dry leaf"),
        items("swim / went down like a stone / swam to the other side; "
              "throw flat stones / heard only one big splash / "
              "saw a stone jump seven times; row a boat / went around in circles / rowed up to the mill"),
        items("a big slap / a beaver with its flat tail; a deep voice / a fat green frog; "
              "a slow song / the old mill wheel"),
        items("in the mill; under the bridge; under a turned boat"),
        items("the line of the river; the sound of the mill; the smoke of the village")),
    "market": Setting(
        "spring summer autumn", items("at the market; in the village square; at the fair; "
                            "on the market street"),
        items("coin; bag; basket; umbrella; necklace; hat; toy car; cup; ribbon"),
        items("under a table; behind a pile of melons; between two baskets; near the cheese stand"),
        items("fruit seller; fish seller; old toy maker; bread seller"),
        items("People talked and laughed everywhere.; The tables were full of fruit.; "
              "A man sold balloons at the corner.; "
              "It smelled of bread and flowers."),
        items("taste the cheese; look at the toys; help the fruit seller; smell the flowers; "
              "watch the clowns"),
        items("hen had run away from its cage / called it with a little corn; "
              "puppy was tied to a post without water / "
              "brought it a bowl of water; donkey would not go on / took the heavy bags off its back"),
        items("a fruit salad / melons / some sweet grapes; a stand of their own / a table / two boxes"),
        items("throw apples / dropped every apple / kept three apples in the air; "
              "sell melons / spoke so softly that nobody came / "
              "sold the whole pile before noon; "
              "sing aloud / forgot all the words / sang for the whole square"),
        items("a happy song / an old music box; a loud pop / a balloon in the sun; "
              "a strange cry / a green parrot in a cage"),
        items("under a table; in the bread shop; under a big umbrella"),
        items("the smell of bread; the music of the fair; the high roof of the town hall")),
}

ANIMALS = {  # where it lives: animal, what it eats, what it calls home
    "forest": items("fox, berries, den; squirrel, nuts, hole in the oak; bear, honey, cave; "
                    "rabbit, clover, burrow; "
                    "owl, mice, hollow tree; deer, fresh leaves, bed of moss; "
                    "hedgehog, beetles, pile of leaves; wolf, meat, den"),
    "sea": items("crab, small fish, hole in the sand; seal, fish, flat rock; turtle, sea grass, cave; "
                 "gull, fish, nest"),
    "farm": items("lamb, clover, barn; hen, corn, hen house; pig, apples, bed of straw; "
                  "horse, carrots, barn; "
                  "goose, grass, nest; donkey, hay, barn; goat, leaves, barn"),
    "city": items("cat, fish, box by the door; dog, bones, warm basket; dove, bread, nest; "
                  "mouse, cheese, hole in the wall"),
    "mountain": items("eagle, fish, nest; goat, grass, barn; fox, berries, den"),
    "garden": items("snail, cabbage, flower pot; bee, honey, hive; robin, worms, nest; "
                    "hedgehog, beetles, pile of leaves; mouse, seeds, hole"),
    "snow": items("penguin, fish, nest; white rabbit, roots, burrow; reindeer, moss, barn; "
                  "white bear, fish, cave"),
    "river": items("duck, water plants, nest; frog, flies, wide leaf; beaver, bark, house of sticks; "
                   "otter, fish, hole in the bank; "
                   "swan, water plants, nest"),
}

PLACES = {  # what one sees; hears; smells or feels; what people or animals do there
    "forest": ("tall pines; a narrow path; red mushrooms; soft moss",
    "the wind in the trees; a bird; the stream",
               "wet leaves; pine; rain", "a fox drinks from the stream; two squirrels look for nuts; "
               "a deer stands still"),
    "sea": ("white waves; small boats; gray rocks; wet sand", "the gulls; the waves; a ship far away",
            "salt; fish; the wind", "children look for shells; an old sailor mends a net; "
            "a crab walks to the water"),
    "farm": ("brown cows; a red barn; yellow wheat; fat ducks", "the rooster; the old cart; a sleepy pig",
             "hay; fresh milk; grass", "a girl feeds the hens; the farmer brushes his horse; "
             "the sheep eat grass"),
    "city": ("red buses; high houses; bright windows; many bikes",
    "the trains; a street singer; the big clock",
             "coffee; rain; fresh bread",
             "people wait for the bus; a boy feeds the doves; a dog runs after a ball"),
    "mountain": ("white tops; gray rocks; a small lake; stone houses", "goat bells; the wind; the echo",
                 "snow; fresh grass; smoke",
                 "an eagle flies over the valley; the goats climb; a guide reads his map"),
    "garden": ("red roses; ripe tomatoes; a green fence; an apple tree",
    "the bees; a robin; the rain on the leaves",
               "flowers; warm earth; apples",
               "a snail climbs up a leaf; a boy waters the flowers; a cat sleeps in the shade"),
    "snow": ("white roofs; a frozen lake; a snowman; dark trees",
    "the bells of a sled; the ice; our own steps",
             "tea; smoke; cold air", "children skate on the ice; a bird looks for seeds; "
                                     "a man sells hot tea"),
    "river": ("clear water; an old mill; green reeds; a wooden bridge",
    "the frogs; the mill wheel; the water",
              "water plants; wet wood; mud",
              "a duck leads her young; a beaver builds a house; a man waits for a fish"),
    "market": ("round melons; bright balloons; long tables; many people",
    "the sellers; happy music; a green parrot",
               "cheese; bread; flowers", "a woman buys a fish; a clown makes us laugh; "
               "two girls share an apple"),
}
ROOMS = {
    "kitchen": "a big stove; a row of cups; a pot of soup; a bowl of eggs",
    "bedroom": "a soft bed; a small lamp; a warm blanket; a box of toys",
    "classroom": "a row of desks; a big map; a box of chalk; a high shelf",
    "library": "a long table; a thousand books; a tall ladder; a quiet clock",
    "music room": "an old piano; a wooden flute; a small drum; a pile of songs",
    "bakery": "a hot stove; a shelf of bread; a bag of flour; a sweet cake",
}
SEASONS = {
    "spring": ("the snow is gone; the first flowers open; the birds build nests; the rain is warm",
    "plant seeds; open the windows; fly kites"),
    "summer": ("the days are long; the wheat is yellow; the water is warm; the nights are short",
    "swim in the lake; eat melons; sleep late"),
    "autumn": ("the leaves fall; the apples are ripe; the wind is cool; the fog is thick",
    "pick apples; look for mushrooms; bring in the hay"),
    "winter": ("the lake is frozen; the nights are long; snow lies on the roofs; the trees are bare",
    "skate on the ice; drink hot tea; build snowmen"),
}
FOODS = items("bread; cheese; eggs; soup; noodles; rice; fish; pancakes; tomatoes; carrots; apples; honey; "
              "nuts; potatoes; cake; pears")
SMALL_THINGS = items("key; hat; scarf; basket; book; pencil; bag; letter; flute; glove; ribbon; ball; "
                    "apron; notebook; watch")
DRINKS = items("milk; tea; water; hot chocolate; apple juice")
JOBS = {
    "baker": "gets up in the night; bakes bread; puts the bread on the shelf; "
    "talks with the people in the shop",
    "farmer": "milks the cows; feeds the hens; drives to the field; brings in the hay",
    "teacher": "opens the school; reads with the children; sings a song; corrects the notebooks",
    "fisherman": "rows out to sea; throws the net; counts the fish; mends the boat",
    "gardener": "waters the flowers; cuts the grass; plants a tree; picks the tomatoes",
    "librarian": "opens the library; puts the books on the shelves; helps the readers; turns off the lamps",
    "bus driver": "cleans the bus; drives to the station; waits for the old people; counts the tickets",
    "doctor": "visits the sick; looks at the children; writes long letters; drinks cold tea",
    "postman": "takes the letters; rides up the hill; knocks at every door; rides home with an empty bag",
}
MACHINES = {  # what it does; what it needs; what it looks or sounds like
    "clock": ("shows the time; rings at seven", "a new spring; a little oil",
    "ticks all night; has two thin hands"),
    "train": ("carries people to the city; brings letters", "a driver; a long road of iron",
    "goes over the bridge with a loud noise; is as long as a street"),
    "mill": ("turns wheat into flour; works day and night", "wind or water; strong wheels",
    "turns slowly; makes the floor move"),
    "bike": ("takes a child to school; needs no road", "two good legs; a little air",
    "has two wheels and a bell; makes almost no noise"),
    "lamp": ("gives light; helps us to read", "a switch; a new bulb now and then",
    "stands on the table; is warm to the hand"),
    "computer": ("counts very fast; keeps our letters and pictures", "power; a clear order",
    "hums softly; has a bright screen"),
    "tractor": ("pulls the cart; helps the farmer in the field", "oil; a strong driver",
    "has big black wheels; is louder than ten cows"),
    "washing machine": ("cleans our clothes; turns in circles", "water and soap; power",
    "hums a deep song; has a round window"),
}

PLACE: Plot = [
    ["{At} one can see {see} and {see2}.", "We see {see} {at}, and not far away {see2}.",
     "I am {at}, and it is {a_weather} {time}.",
     "Have you ever seen {see} {at}?", "In {season} we often sit {at} and look at {see}.",
     "If you go {to} in {season}, you will find {see} and {see2}."],
    ["One hears {hear}, and the air smells of {smell}.", "Listen: that is {hear}.",
     "It smells of {smell}, and somewhere one hears {hear}.",
     "The {time} is {weather}, and it smells of {smell}.", "The only sound is {hear}."],
    ["{Do}, while {do2}.", "{Do}, and {do2}.", "Every {time}, {do}.", "Look, {do}!",
     "When it is quiet, {do}."],
    ["Nobody is in a hurry.", "I like to be here [very much|alone|with my friends].",
     "It is a good place to [rest|think|draw a picture].",
     "In the evening, everything becomes still.", "Who would not want to stay here?"],
]
ANIMAL: Plot = [
    ["{A_animal} lives {at}.", "This is {name}, {a_trait} {animal}.",
     "Have you ever seen {a_animal} {at}?",
     "{A_trait} {animal} named {name} lives {at}.", "{Name} is {a_animal}, and [its|the] home is {a_home}."],
    ["It eats {food} and sleeps in {a_home}.", "Most of all it likes {food}.",
     "It looks for {food} every {time}.",
     "When it is hungry, it looks for {food}.", "Without {food} it cannot live."],
    ["In {season} it is more [quiet|lively|careful] than in {season2}.",
     "If it hears a noise, it [hides|stands still|runs away].",
     "Its eyes are [dark|bright|round], and its ears hear everything.",
     "It is [smaller|bigger|faster] than many think.",
     "It is never far from {a_other}."],
    ["I have seen it twice.", "Children love to watch it.", "At night it [dreams|rests|listens] in {a_home}.",
     "It has no [clock|map|money] and needs none."],
]
ROOM: Plot = [
    ["In {whose} {room} there is {a} and {b}.",
     "{Whose} {room} is {small}, but there is room for {a} and {b}.",
     "When one opens the door of {whose} {room}, one sees {a} first.",
     "{Whose} {room} has one {small} window and {a}."],
    ["{A_thing} lies on the [floor|table|chair].",
     "Under the window stands {c}, and beside it lies {a_thing}.",
     "{C} stands in the corner.", "Someone has left {a_thing} there.",
     "On the left one finds {b}, on the right {c}."],
    ["In the {time} it is [warm|quiet|full of light].", "It smells of {smell}.",
     "Nobody may [run|shout|sleep] here.",
     "Outside it is {weather}, but here it is warm.", "{Name} likes to sit here and read."],
]
SEASON: Plot = [
    ["In {season} {a}, and {b}.", "It is {season}: {a}.", "When {season} comes, {a}.",
     "{Season} is here, and {a}.", "One knows that it is {season} when {a} and {b}."],
    ["The {time} is {weather}.", "Often the {time} is {weather}, but nobody minds.",
     "We see {see} and hear {hear}.", "{At}, {do}.",
     "{Name} looks out of the window and sees {see}."],
    ["Now we can {play} and {play2}.", "Children {play} or {play2}.", "It is time to {play}.",
     "{Name} likes to {play}, but {friend} likes to {play2}."],
]
MEAL: Plot = [
    ["For [breakfast|lunch|dinner], {name} eats {a} and {b}.",
     "On the table stand a plate of {a} and a bowl of {b}.",
     "{Name} is cooking for {friend}: there will be {a} with {b}.",
     "Today there is {a} with {b}, and after that {c}.",
     "{Name} and {friend} are eating {a} {at}."],
    ["With it {they} [drinks|has] {drink}.", "The {drink} is [hot|cold|sweet], just as {name} likes it.",
     "A cup of {drink} stands beside the plate.",
     "{Friend} would rather have {c} and {drink}."],
    ["It smells good, and everyone is hungry.", "The {a} came from the market this morning.",
     "There is enough {c} for all.",
     "The best part is the {b}.", "After the meal, {friend} washes the plates."],
]
DAY: Plot = [
    ["{Name} is {a_job}.", "{Name} works as {a_job} near here.", "My friend {name} is {a_job}.",
     "Every day is a full day for {name}, {a_job}."],
    ["In the morning {they} {a} and {b}.", "First {they} {a}, then {they} {b}.", "Before noon {they} {a}.",
     "{They} {a}, even when it is {weather}."],
    ["In the afternoon {they} {c}.", "After lunch {they} {c} and {d}.",
     "Later {they} {c}, and {friend} helps {them}.", "When the sun goes down, {they} {d}."],
    ["In the evening {name} eats {food} and goes to bed.", "{Name} likes this work.",
     "At home {friend} is waiting with {food} and {drink}.",
     "{They} is tired, but [happy|proud|glad]."],
]
MACHINE: Plot = [
    ["A {machine} {a}.", "What would {name} do without the {machine} that {a}?",
     "{Name} has [a new|an old|a small] {machine} that {a}.", "The {machine} of {name} {a} and {b}."],
    ["It needs {need}.", "Without {need} it does not work.", "To work well, it needs {need}.",
     "Someone must give it {need}, or it stops."],
    ["It {look}.", "It {look}, and {friend} likes that.", "When {friend} is near, it {b}."],
    ["It is [much older|a little older|younger] than {name}.", "{Name} looks after it every {time}.",
     "{Name} and {friend} [could not|would not like to] live without it.",
     "Every {time}, {name} cleans it with a soft cloth.", "Nobody knows it better than {name}."],
]


def _pair(text: str, rng: random.Random) -> list[str]:
    return rng.sample(items(text), 2)


def description(rng: random.Random) -> str:
    """A description of two to four steps, mostly in the present tense.

    Args:
        rng: source of all choices; the same state gives the same description.

    Returns:
        One paragraph, without a line break.
    """
    place = rng.choice(list(PLACES))
    setting, (see, hear, smell, do) = SETTINGS[place], PLACES[place]
    season = rng.choice(setting.seasons.split())
    pronoun = rng.choice(["she", "he"])
    name, friend = rng.sample(NAMES[pronoun], 2)
    where, noun = rng.choice(setting.places).split(" ", 1)
    thing = rng.choice(SMALL_THINGS)
    values = dict(zip(("see", "see2"), _pair(see, rng), strict=True)) | dict(zip(("do", "do2"), _pair(do,
    rng), strict=True))
    values |= {
        "hear": rng.choice(items(hear)), "smell": rng.choice(items(smell)), "at": f"{where} {noun}",
        "to": f"to {noun}",
        "season": season, "weather": rng.choice(WEATHER[season]),
        "time": rng.choice(["morning", "afternoon", "evening"]),
        "name": name, "friend": friend, "they": pronoun, "them": PRONOUNS[pronoun][0],
        "their": PRONOUNS[pronoun][1],
        "a_thing": with_article(f"{rng.choice(OBJECTS[thing])} {thing}"), "food": rng.choice(FOODS),
        "drink": rng.choice(DRINKS),
        "trait": rng.choice(["small", "young", "old", "shy", "clever", "quiet"]),
    }
    values["a_weather"] = with_article(values["weather"])
    frame = rng.choice([PLACE, ANIMAL, ROOM, SEASON, MEAL, DAY, MACHINE])
    if frame is ANIMAL:
        home_place = rng.choice(list(ANIMALS))
        kinds = [kind.split(", ") for kind in rng.sample(ANIMALS[home_place], 2)]
        (animal, food, home), other = kinds[0], kinds[1][0]
        where, noun = rng.choice(SETTINGS[home_place].places).split(" ", 1)
        values |= {"animal": animal, "a_animal": with_article(animal),
        "a_trait": with_article(values["trait"]), "food": food,
                   "a_home": with_article(home), "a_other": with_article(other), "at": f"{where} {noun}",
                   "season": "summer", "season2": rng.choice(["spring", "autumn", "winter"]),
                   "name": rng.choice(ANIMAL_NAMES)}
    elif frame is ROOM:
        room = rng.choice(list(ROOMS))
        a, b, c = rng.sample(items(ROOMS[room]), 3)
        values |= {"room": room, "a": a, "b": b, "c": c, "whose": rng.choice(["the", "this", "our"]),
                   "small": rng.choice(["small", "big", "old", "new", "bright"])}
    elif frame is SEASON:
        signs, plays = SEASONS[season]
        values |= dict(zip(("a", "b", "play", "play2"), _pair(signs, rng) + _pair(plays, rng), strict=True))
    elif frame is MEAL:
        values |= dict(zip("abc", rng.sample(FOODS, 3), strict=True))
    elif frame is DAY:
        job = rng.choice(list(JOBS))
        values |= dict(zip("abcd", items(JOBS[job]), strict=True)) | {"a_job": with_article(job)}
    elif frame is MACHINE:
        machine = rng.choice(list(MACHINES))
        does, needs, look = MACHINES[machine]
        need = rng.choice(items(needs))
        a, b = _pair(does, rng)
        values |= {"machine": machine, "a": a, "b": b, "need": need, "look": rng.choice(items(look))}
    return " ".join(fill(rng.choice(wordings), values, rng) for wordings in frame)
