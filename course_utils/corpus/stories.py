"""Very short English stories, put together from hand-written parts by a seeded random generator.

A story is an opening, perhaps a detail of the place, and the steps of one plot. All that a story speaks of is
drawn once, before the first sentence (who, where, which object), so that what is lost is what is found. In
the wordings `{key}` is one of those things (`{Key}` with a capital letter) and `[a|b]` is a choice of words.
The vocabulary is kept small on purpose: a tiny language model is to learn it whole.
"""

import random
import re

from course_utils.corpus.descriptions import (
    ANIMAL_NAMES,
    ANIMALS,
    NAMES,
    OBJECTS,
    PRONOUNS,
    SETTINGS,
    WEATHER,
    Plot,
    Setting,
    Wordings,
    description,
    fill,
    items,
    with_article,
)

__all__ = ["description", "story"]

TRAITS = items("kind; quiet; brave; curious; cheerful; shy; clever; patient; gentle; busy; careful; lively")
FAMILY = items("mother; father; grandmother; grandfather; aunt; uncle; big sister; big brother")
JOY = items("happy; proud; glad; very happy; so happy; calm and happy; full of joy; warm inside")
SAD = items("sad; worried; upset; very sad; a little afraid; ready to cry")
TIMES = items("morning; afternoon; day; evening")
BREAKABLE = items("flute; lantern; basket; boat; bottle; kite; drum; cup; bowl; clock; watch; umbrella; "
                  "toy car; lamp; picture; "
                  "box; doll; necklace; sled")
ANIMAL_SKILLS = {  # what it learns / how it goes wrong / how it goes well
    "owl gull hen dove eagle robin goose duck swan": items(
        "fly higher / fell into a soft bush / flew over the highest tree; "
        "sing / made a noise like an old door / sang until the sun went down"),
    "fox bear wolf rabbit squirrel hedgehog deer lamb pig horse donkey goat cat dog mouse reindeer": items(
        "jump over the stream / landed in the cold water / landed on the other side; "
        "dance / stepped on its own feet / danced in a perfect circle; "
        "run fast / fell over a root / ran faster than the wind"),
    "crab seal turtle penguin frog beaver otter snail bee": items(
        "go up the steep rock / slid down again / looked down from the top; "
        "dance / turned the wrong way / danced in a perfect circle; "
        "count to ten / forgot the number six / counted up to twenty"),
}

SCENES = [  # a story that begins at one moment
    "One {weather} {season} {time}, {name} was {at}.",
    "Early one {season} {time}, {name} went {to}.",
    "It was {a_weather} {season} {time}, and {name} was {at}.",
    "On {a_weather} {time} in {season}, {name} came {to}.",
    "{name} was {at} one {weather} {season} {time}.",
    "It was {season}, and the {time} was {weather}. {name} was {at}.",
    "Last {season}, {name} spent {a_weather} {time} {at}.",
    "The {season} {time} was {weather} when {name} came {to}.",
]
HABITS = [  # a story that begins with what is so every day
    "{name} was {a_trait} {kind} who loved to {play}.",
    "Once upon a time there was {a_trait} {kind} named {name}. [{They} was|Every day {they} was] often {at}.",
    "{A_trait} {kind} named {name} was often {at}.",
    "Every {time}, {name} went {to} to {play}.",
    "More than anything, {name} loved to {play}.",
    "Nobody loved to {play} more than {name}. [Every week|Almost every day], {they} went {to}.",
    "There was once {a_trait} {kind} called {name}, who went {to} every {time}.",
    "{name} [liked to be|was happiest|spent every {time}] {at}.",
]

LOST: Plot = [
    ["{When} {name} reached for {their} {thing}, and it was gone.",
     "{When} {name} lost {their} {thing}.",
     "{When} {their} {thing} was gone, and {name} did not know where it was.",
     "{When} {name} looked around. Where was the {thing} that {family} had given {them}?",
     '{When} {name} stopped. "Oh no, I have lost my {thing}!" {they} cried.',
     '{When} {name} looked everywhere. "Where is my {object}?" {they} asked.'],
    ["{They} looked {spot2}, but [found only dust and an old leaf|it was not there].",
     "{They} [searched|looked] for an hour and felt {sad}.",
     "{They} sat down, {sad}, and tried to remember the whole {time}.",
     "{They} went back the same way, step by step, and found nothing."],
    ["Then {helper_intro} came and helped {them} look.",
     "{Helper} said that two pairs of eyes see more than one.",
     "Luckily, {helper_intro} saw {their} face and stopped to help.",
     '"Where did you sit last?" {helper_intro} asked. {Name} thought hard.',
     '"We will look together," said {helper_intro}.'],
    ["They found the {object} {spot}.", "There it was, {spot}!",
     "At last {name} saw something {spot}. It was the {object}!",
     "The {object} lay {spot}, and it was not even broken."],
    ["{Name} was {joy} and [thanked {helper}|gave {helper} a big hug].",
     "From then on, {name} always kept the {object} in a safe place.",
     "{They} did not let go of the {object} all the way home.",
     "{Name} learned that it is good to ask for help."],
]
FOUND: Plot = [
    ["{When} {name} found {a_thing} {spot}.", "{When} {name} saw something {spot}. It was {a_thing}.",
     "{When} {they} looked {spot} and found {a_thing}.", "{When} {a_thing} lay {spot}, and nobody was near."],
    ["{Name} liked it very much and wanted to keep it.",
     "It was the finest {object} that {name} had ever seen.",
     "{They} turned it over and saw a name on it.", "{They} wondered who had lost it.",
     '"Whose {object} is this?" {name} asked, but nobody answered.',
     '"How pretty!" {they} said. "But it is not mine."'],
    ["A little later, {a_person} came by and looked very sad.",
     "Then {name} saw {a_person} who was looking for something.",
     "Not far away, {a_person} was searching everywhere.", "Then {a_person} came back with a worried face."],
    ["{Name} thought for a moment and gave the {object} back.",
     "It was not easy, but {name} held out the {object}.",
     "{Name} ran to the {person} and handed over the {object}.",
     "{Name} knew what was right and gave it back at once.",
     '"Is this yours?" asked {name}. "Yes, thank you!" cried the {person}.',
     '"You are an honest {kind}," said the {person}, and took the {object} with a smile.'],
    ["The {person} thanked {them} and told {them} the story of the {object}.",
     "As thanks, the {person} gave {them} [a sweet apple|a warm cake|a bag of nuts].",
     "{Name} had no {object} now, but {they} felt {joy}.",
     "That night {name} slept well, for {they} had done the right thing.",
     "After that, {name} and the {person} were good friends."],
]
LEARN: Plot = [
    ["{When} {name} wanted to learn to {skill}.",
     "{When} {name} saw how {helper_intro} could {skill}. {They} wanted to do it too.",
     "{When} {name} had a new wish: to {skill}.", "{When} {they} decided to {skill}, just like {helper}.",
     '"I want to {skill}," {name} told {helper_intro}.'],
    ["The first time, {they} {fail}.", "It was hard. {They} {fail}, and someone laughed.",
     "{They} tried, but {they} {fail}.",
     "{They} {fail} and wanted to give up."],
    ["{Helper} showed {them} how to do it slowly.", "{Helper} told {them} to try a little every day.",
     "But {helper} said that nobody is good at the start.", "Then {helper} stayed and practiced with {them}.",
     '"Try again, and do not hurry," said {helper}.',
     '"I was bad at it too, once," {helper} said with a smile.'],
    ["{Name} practiced [every day|every morning|again and again] for [a week|two weeks|a month].",
     "[Day after day|Week after week], it went a little better.",
     "{Name} tried again, once, twice, ten times.",
     "So {name} went {to} every {time} and did not give up."],
    ["Then one day {they} {win}.", "In the end, {name} {win}.", "And at last {they} {win}!",
     "One week later, {name} {win}."],
    ["{Helper} clapped, and {name} was {joy}.", "{Name} learned that small steps lead far.",
     "{Name} was {joy} and could not stop smiling.",
     "Now {name} teaches it to other children."],
]
MAKE: Plot = [
    ["{When} {name} wanted to make {make} with {pal}.", "{When} {name} and {pal} began to make {make}.",
     "{When} {name} had an idea: {they} would make {make}.", "{When} {pal} asked {name} to help with {make}.",
     '"Let us make {make}!" {name} said to {pal}.'],
    ["They worked hard, but they had no {bare}.",
     "Soon there was a problem: there was no more {bare} to be found.",
     "Everything was ready, but they had forgotten the {bare}.",
     "They looked everywhere for {missing} and found nothing.",
     '"We have no {bare}!" cried {friend}.'],
    ["{Friend} felt {sad} and wanted to stop.", "For a while they sat and did not know what to do.",
     "{Name} felt {sad}, but only for a moment.", "They asked {a_person}, who could not help them."],
    ["Then {name} looked around and saw {instead}. It worked well!",
     "Then {friend} brought {instead}, and that was even better.",
     "In the end they took {instead}.", "{Name} laughed, ran away and came back with {instead}.",
     '"We can use {instead}," said {name}. It was a very good idea.',
     '"Why not take {instead}?" asked {a_person}.'],
    ["When it was ready, everyone came to see it.", "It looked a little strange, but they loved it.",
     "They were {joy} with what they had made.", "The two friends looked at their work and laughed.",
     "A good idea is sometimes better than the right thing."],
]
RESCUE: Plot = [
    ["{When} {name} heard a [weak|soft|sad] cry.", "{When} {name} heard something move {spot}.",
     "{When} {they} saw something small {spot}.", "{When} a strange noise made {name} stop."],
    ["It was {a_creature}. It {trouble}.", "A little {animal} {trouble}.",
     "{They} came closer and saw that {a_creature} {trouble}.",
     "A young {animal} was there. It {trouble}."],
    ["The {animal} was afraid, so {name} moved very slowly.", "{Name} was {sad}, but {they} stayed calm.",
     "{Name} spoke in a low voice until the {animal} was quiet.", "At first {name} did not know what to do.",
     '"Do not be afraid," said {name} softly. "I will help you."', '"You poor little thing," {name} said.'],
    ["Then {name} {fix}.", "With great care, {they} {fix}.", "{Name} had an idea and {fix}.",
     "{They} called {helper_intro}, and {helper} {fix}."],
    ["The {animal} looked back once and was gone.", "Soon the {animal} was well again.",
     "The {animal} was free!",
     "After a short rest, the {animal} went home to its family."],
    ["{Name} was {joy}.", "The next day the {animal} came back and sat beside {name}.",
     "Even a small hand can do a big thing.",
     "{Name} told {helper_intro} the whole story that evening.",
     "Since then, {name} has had a friend there."],
]
STORM: Plot = [
    ["{When} dark clouds came up behind {name} and {pal}.",
     "{When} the sky turned black over {name} and {pal}.",
     "{When} {name} and {pal} were far from home, and a storm began.",
     "{When} a cold wind rose, and {pal} heard thunder."],
    ["The [rain|wind] came fast, and there was no roof near.", "{Friend} was afraid and began to cry.",
     "They ran, but the path was [wet|dark], and they could hardly see.",
     "{Name} took {friend} by the hand and ran.",
     '"I am afraid," said {friend}. "Stay close to me," said {name}.',
     '"Run!" shouted {name}. "We must find a roof!"'],
    ["Then {name} remembered a place, and they hid {shelter}.",
     "{A_person} called them, and they sat together {shelter}.",
     "They found a dry place {shelter}.", "Together they waited {shelter}."],
    ["To pass the time, they told each other funny stories.",
     "They shared one sweet apple and counted the seconds after each flash.",
     "{Name} sang a song, louder than the thunder.",
     "It was cold, so they sat close together under one coat."],
    ["An hour later the storm was over, and the sun came out.",
     "At last it was quiet again, and the air smelled fresh.",
     "When they looked out, the sky was clear.", "Soon the clouds were gone."],
    ["They walked home, wet but {joy}.", "A storm is not so bad with a good friend.",
     "{Friend} was not afraid of storms any more.",
     "At home they drank hot milk and laughed about it."],
]
LOST_WAY: Plot = [
    ["{When} {name} walked too far and did not know the way back.",
     "{When} {name} followed {a_creature} and lost the way.",
     "{When} {they} looked up, and everything looked strange.",
     "{When} thick fog came, and {name} could not see the path."],
    ["{They} [turned left, then right|walked in a circle], but nothing looked the same.",
     "{They} felt {sad} and sat down on a stone.",
     "It grew late, and {they} {was} all alone.", "{They} called, but there was no answer.",
     '"Hello! Is anyone there?" {they} called.', '"Which way is home?" {name} asked {self}.'],
    ["Then {they} remembered what {family} had once told {them}: stand still and think.",
     "{Name} took a deep breath and listened.",
     "{Name} did not run. {They} stood still and looked around.", "Then {they} had a good idea."],
    ["{They} followed {clue}, and it led {them} back.", "It was {clue} that showed {them} the way.",
     "Slowly, {name} went on with the help of {clue}.", "{They} knew {clue} well and walked that way."],
    ["{Family} was waiting at the door with [hot tea|a warm blanket|a lamp].",
     "{Family} ran to meet {them} and was {joy}.",
     "When {they} came home, {family} held {them} tight.", "Before dark, {name} was home again.",
     '"I was so worried!" said {family}. "I am glad that you are back."'],
    ["Since that day, {name} always looks back to remember the way.", "{Name} was tired, but {joy}.",
     "A calm head finds the way.",
     "{They} had never been so glad to see {their} own bed."],
]
SHARE: Plot = [
    ["{When} {name} and {pal} found {a_thing}, and both wanted it.",
     "{When} {name} and {pal} saw {a_thing} {spot}.",
     "{When} {name} and {pal} reached for the same {thing}.",
     "{When} {pal} wanted to have the {thing} that {name} was holding."],
    ["{Name} pulled on one side, and {friend} pulled on the other.", "Each of them wanted to be first.",
     "They [argued|shouted] until their faces were red.", "Neither of them would give it up.",
     '"It is mine!" cried {name}. "No, I saw it first!" said {friend}.',
     '"Give it to me!" said {friend}, and {name} said no.'],
    ["{A_person} heard them and came over.", "Then both sat down with their backs to each other.",
     "After that, they did not speak for an hour.",
     "It was not a good {time} any more, and both were angry."],
    ["Then {name} had an idea: one day for one, one day for the other.",
     "In the end, {name} gave the {object} to {friend} for the {time}.",
     "{Friend} said sorry first, and they made a plan to share it.",
     "They agreed to use the {object} together.",
     '"You take it today, and I take it tomorrow," said {name}.',
     '"{A_object} is good, but a friend is better," said {name}.'],
    ["That was much more fun.", "Now both of them were {joy}.",
     "After that, they never argued about the {object} again.",
     "They shook hands and laughed.", "Things that we share make us happy twice."],
]
GIFT: Plot = [
    ["{When} it was almost the birthday of {family}.", "{When} {name} wanted to give {family} a present.",
     "{When} {name} heard that {family} was sick in bed.", "{When} {name} saw that {family} looked sad."],
    ["But {name} had no money, only an empty pocket.", "{A_thing} would be nice, but it cost too much.",
     "{Name} thought and thought: what could {they} give?", "All the fine things were too expensive.",
     '"What can I give without money?" {name} asked {pal}.'],
    ["Then {they} decided to make {make}.", "So {they} went to work and made {make} with {their} own hands.",
     "{Pal} helped {them} to make {make}.", "All {time}, {name} worked in secret to make {make}."],
    ["It was not perfect, and {their} hands were tired.", "Instead of {missing}, {they} used {instead}.",
     "It took a long time, but it was fun.",
     "{They} put a red ribbon on it and wrote a card."],
    ["{Family} opened both eyes wide and smiled.", "{Family} was {joy} and hugged {them}.",
     "When {family} saw it, the room was full of laughter.", "{Family} had never had such a present.",
     '"It is the best present of my life," said {family}.',
     '"Did you make it for me?" {family} asked. "Thank you!"'],
    ["{Name} learned that time is a gift too.", "{Name} felt {joy}.", "The best gifts come from the heart.",
     "It stands in the window to this day."],
]
NOISE: Plot = [
    ["{When} {name} heard {a_sound}.", "{When} there was {a_sound}, and {name} stood still.",
     "{When} {a_sound} came from somewhere near.",
     "{When} {name} heard {a_sound} and forgot everything else."],
    ["It stopped, and then it came again.", "{Name} felt cold, but {they} {was} curious too.",
     "It seemed to come from somewhere close.",
     "{Pal} wanted to run away.", '"What was that?" whispered {name}.', '"Is it a ghost?" asked {pal}.'],
    ["{Name} took a [stick|lamp|long spoon] and went closer.",
     "Slowly, step by step, {they} followed the sound.",
     "{Name} took a deep breath and looked {spot}.", "{They} asked {a_person}, who knew nothing about it."],
    ["It was only {source}!", "And what did {they} find? It was {source}.", "Then {name} saw it: {source}.",
     "There, {spot}, was the answer: {source}."],
    ["{Name} laughed until {their} sides hurt.", "{Name} was {joy} and told everyone about it.",
     "Now {name} likes that sound best of all.",
     "What we know does not make us afraid.", "{They} had been afraid of such a small thing!"],
]
BROKEN: Plot = [
    ["{When} {name} picked up the {thing} of {helper_intro} and dropped it.",
     "{When} {name} ran too fast and broke the {thing} of {helper_intro}.",
     "{When} {name} played with the {thing} of {helper_intro}, and suddenly it broke.",
     "{When} there was a crash. {Name} had broken the {thing} of {helper_intro}!"],
    ["Nobody had seen it, so {name} hid it {spot}.", "{They} felt {sad} and wanted to hide.",
     "{Name} could not eat, and {their} heart was heavy.",
     "First {they} thought of a lie, but it felt wrong."],
    ["In the end, {name} went to {helper} and told the truth.",
     "That evening {they} told {helper} everything.",
     "{Name} took the {object} in both hands and went to {helper}.", "It was hard, but {name} said sorry.",
     '"I broke it, and I am sorry," said {name}.', '"I must tell you something," {name} said to {helper}.'],
    ["{Helper} was quiet for a moment and then smiled.",
     "{Helper} was not angry, because {name} had been honest.",
     "{Helper} nodded and went to get some glue.", '"Thank you for telling me," said {helper}.',
     '"Things can be mended," {helper} said.'],
    ["Together they mended the {object}, and it was almost like new.",
     "They mended it together, piece by piece.",
     "Then {helper} showed {them} how to mend it.",
     "{Name} worked for {helper} all week to make it good again."],
    ["{Name} felt {joy} and light.", "The truth is hard to say, but good to have said.",
     "From then on, {name} was more careful.",
     "That night {name} slept well."],
]
NEW_FRIEND: Plot = [
    ["{When} {name} saw a new child who stood all alone. The child was called {friend}.",
     "{When} {friend} came, who knew nobody there.",
     "{When} {name} met {friend}, who had just moved from far away.",
     "{When} a stranger named {friend} sat down near {name}."],
    ["{Friend} spoke another language and said only a few words.",
     "{Friend} looked at the ground and said nothing.",
     "The other children did not ask {friend} to play.", "At first, both of them were too shy to speak.",
     '"Hello, what is your name?" asked {name}, but {friend} only smiled.'],
    ["{Name} showed {friend} {a_thing} and smiled.",
     "So {name} drew a funny picture, and {friend} drew another.",
     "{Name} gave {friend} half of {their} bread.", "Then {name} asked {friend} to {play}.",
     '"Would you like to {play}?" {name} asked.',
     '"Come with me," said {name}. "I will show you everything."'],
    ["{Friend} laughed for the first time that {time}.",
     "It turned out that {friend} could {skill} very well.", "Soon they played like old friends.",
     "{Friend} taught {them} a new song."],
    ["Since then, they go {to} together.", "Both went home {joy}.", "A smile needs no words.",
     "That is how {name} found a best friend.",
     "It takes only one kind word to make a friend."],
]
HUNGRY: Plot = [
    ["{When} {name} was very hungry, but there was nothing to eat but dry grass.",
     "{When} {name} wanted {food} for [breakfast|dinner].",
     "{When} {name} looked for {food} and found nothing.",
     "{When} {name} dreamed of {food} and woke up hungry."],
    ["{They} looked {spot}, but it was empty.", "{They} smelled {food}, but a high wall was in the way.",
     "{They} asked {a_other}, who had nothing too.", "The best {food} lay on the other side of a high fence.",
     '"I am so hungry," {name} said to {a_other}.'],
    ["{Name} tried to jump, but it did not help.", "{They} pulled and pushed until {they} {was} tired.",
     "{They} sat down and thought about it.", "{Name} wanted to give up and go home."],
    ["Then {a_other} came, and the two of them worked together.",
     "{A_other} knew a secret way and showed it to {name}.",
     "In the end, {a_other} stood on top of {name} and got it.",
     "Then {a_other} helped and asked only for half.",
     '"Let us help each other," said {a_other}.', '"Climb on my back," said {name} to {a_other}.'],
    ["Soon both had a full stomach.", "There was enough for two.",
     "They shared everything and ate until the sun went down.",
     "They ate slowly, side by side."],
    ["{Name} went back to the {home} and slept.", "{Name} was {joy}.", "Food tastes better with a friend.",
     "After that, they always ate together."],
]
ANIMAL_LEARN: Plot = [
    ["{When} {name} decided to learn to {skill}.",
     "{When} all the others could {skill}, only {name} could not.",
     "{When} {name} watched {a_other} and wanted to {skill}.",
     "{When} {name} wished for one thing only: to {skill}.",
     '"Today I will {skill}!" said {name}.'],
    ["{Name} tried hard, but {fail}.", "The first time, {they} {fail}.",
     "{Name} closed both eyes, began, and {fail}.",
     "It looked easy, but {name} {fail}."],
    ["The others laughed, and {name} hid in the {home}.",
     "{Name} was {sad} and did not want to eat any {food}.",
     "But {a_other} did not laugh and sat down beside {them}.", "{A_other} told {them} to try again.",
     '"You are small, but you are not weak," said {a_other}.',
     '"Think of {food}, and you will not be afraid," said {a_other}.'],
    ["So {name} practiced when nobody was looking.", "Every {time}, {they} tried once more.",
     "{Name} tried ten times, then ten times more.",
     "{They} rested a little and began again."],
    ["And one day {they} {win}.", "Then, to everyone's surprise, {name} {win}.", "At last {name} {win}!",
     "On the last try, {they} {win}."],
    ["Now all the animals wanted to learn it.", "{Name} was {joy}.",
     "{Name} had learned that it is good to try again.",
     "That evening there was a party with a lot of {food}."],
]
HUMAN_THING: Plot = [
    ["{When} {name} found something strange {spot}. It was {a_thing}.", "{When} {name} saw {a_thing} {spot}.",
     "{When} {a_thing} lay {spot}, and {name} had never seen such a thing.",
     "{When} {name} nearly fell over {a_thing}."],
    ["{They} smelled it, but it was not food.", "{Name} turned it around, bit it, and jumped back.",
     "{They} asked {a_other}, but nobody knew what it was for.", "{Name} thought that it was alive.",
     '"What is it?" {name} asked {a_other}. "Can one eat it?"'],
    ["{A_other} said that it was a [bed|hat|house] for very small animals.",
     "{A_other} wanted to have it and pulled on it.",
     "First {name} slept on it, then under it.",
     "{Name} took it to the {home}, but it was too big for the door.",
     '"It is dangerous," said {a_other}. "Put it away!"'],
    ["Then {a_person} came by and looked for something.", "The next {time}, {a_person} came and looked sad.",
     "Then steps came near, and {a_person} called out.", "Soon {a_person} came back to look for it."],
    ["{Name} was {sad}, but {they} put the {object} on the path.",
     "So {name} pushed the {object} close to the {person}.",
     "{Name} was brave and carried the {object} to the {person}.",
     "{They} dropped the {object} in front of the {person} and hid."],
    ["The {person} laughed and left {food} as thanks.",
     "The {person} was so happy that {name} was {joy} too.",
     "And from then on, {name} and the {person} were friends.",
     "{Name} had lost a thing and found a friend."],
]
ANIMAL_HOME: Plot = [
    ["{When} {name} came home, and the {home} was wet and cold.",
     "{When} a storm ruined the {home} of {name}.",
     "{When} {a_other} sat in the {home} and would not leave.",
     "{When} the {home} was too small for {name}."],
    ["{They} wanted another place to sleep.", "{Name} had nowhere to go and felt {sad}.",
     "So {name} set out to find a new home.",
     "{They} took some {food} and went away.", '"I need a new home," {name} said.'],
    ["First {they} slept {spot}, but it was too cold.", "{They} tried a place {spot}, but it was too loud.",
     "{They} lay down {spot}, but the wind came in.", "The first place was too wet, the second too small."],
    ["Then {a_friend} said that there was room for two.",
     "At last {a_friend} came along and helped {them} build a better one.",
     "In the end, {name} met {a_friend} who was alone too.",
     "There {they} met {a_friend}, who felt just the same.",
     '"Come and live with me," said {a_friend}.', '"Two can build faster than one," said {a_friend}.'],
    ["They worked for three days, and then the new home was ready.",
     "They brought dry leaves and made a soft bed.",
     "Together they built it again, stronger than before.", "They moved in together that same {time}."],
    ["When it rained, {name} listened from a warm bed and was {joy}.", "A home is where a friend is.",
     "{Name} never felt alone again.",
     "It was small, but it was theirs."],
]
PERSON_PLOTS = [LOST, FOUND, LEARN, MAKE, RESCUE, SHARE, GIFT, NOISE, BROKEN, NEW_FRIEND]
OUTDOOR_PLOTS = [STORM, LOST_WAY]
ANIMAL_PLOTS = [HUNGRY, ANIMAL_LEARN, HUMAN_THING, ANIMAL_HOME]


def _parts(text: str) -> list[str]:
    return text.split(" / ")


def _scene(setting: Setting, things: list[str], rng: random.Random) -> dict[str, str]:
    """What belongs to the place: season, weather, an object with its place, a sound, someone who may help."""
    preposition, place = rng.choice(setting.places).split(" ", 1)
    season = rng.choice(setting.seasons.split())
    thing = rng.choice(things)
    spot, other_spot = rng.sample(setting.spots, 2)
    trouble, fix = _parts(rng.choice(setting.rescues))
    make, missing, instead = _parts(rng.choice(setting.makes))
    skill, fail, win = _parts(rng.choice(setting.skills))
    sound, source = _parts(rng.choice(setting.sounds))
    animal, trouble = trouble.split(" ", 1)
    person = rng.choice(setting.people)
    return {
        "at": f"{preposition} {place}", "to": f"to {place}", "season": season,
        "weather": rng.choice(WEATHER[season]),
        "time": rng.choice(TIMES), "object": thing, "thing": f"{rng.choice(OBJECTS[thing])} {thing}",
        "spot": spot, "spot2": other_spot, "animal": animal,
        "creature": f"{rng.choice(['small', 'little', 'young'])} {animal}",
        "trouble": trouble, "fix": fix, "make": make, "missing": missing, "instead": instead,
        "bare": re.sub(r"^(a|an) ", "", missing), "skill": skill, "fail": fail, "win": win, "a_sound": sound,
        "source": source,
        "person": person, "play": rng.choice(setting.plays), "joy": rng.choice(JOY), "sad": rng.choice(SAD),
        "shelter": rng.choice(setting.shelters or [""]), "clue": rng.choice(setting.clues or [""]),
        "trait": rng.choice(TRAITS),
    }


def _person(person: str, rng: random.Random) -> dict[str, str]:
    """A person with a pronoun, a friend, and a helper: one of the family, or whoever works at the place."""
    pronoun = rng.choices(list(NAMES), weights=[45, 45, 10])[0]
    name = rng.choice(NAMES[pronoun])
    friend = rng.choice([other for names in NAMES.values() for other in names if other != name])
    family = f"{PRONOUNS[pronoun][1]} {rng.choice(FAMILY)}"
    helper, helper_intro = rng.choice([(family, family), (f"the {person}", with_article(person))])
    return {"name": name, "they": pronoun, "kind": PRONOUNS[pronoun][4], "friend": friend, "family": family,
            "pal": f"{PRONOUNS[pronoun][1]} friend {friend}", "helper": helper, "helper_intro": helper_intro}


def _animal(place: str, rng: random.Random) -> dict[str, str]:
    """An animal with a name, what it eats and can learn, and two others of the same place."""
    kinds = rng.sample(ANIMALS[place], 3)
    kind, food, home = kinds[0].split(", ")
    other, friend = (kind.split(", ")[0] for kind in kinds[1:])
    group = next(group for group in ANIMAL_SKILLS if kind.split()[-1] in group.split())
    skill, fail, win = _parts(rng.choice(ANIMAL_SKILLS[group]))
    return {"name": rng.choice(ANIMAL_NAMES), "they": "it", "kind": kind, "food": food, "home": home,
    "other": other,
            "friend": friend, "skill": skill, "fail": fail, "win": win, "play": f"look for {food}"}


def _sentence(wordings: Wordings, talks: bool, values: dict[str, str], rng: random.Random) -> str:
    """One wording of a step: spoken where the story talks and the step can be spoken, else told."""
    spoken = [wording for wording in wordings if '"' in wording]
    told = [wording for wording in wordings if '"' not in wording]
    return fill(rng.choice(spoken if talks and spoken else told), values, rng)


def _known_again(text: str, noun: str) -> str:
    """From its second mention on, "a fox" is "the fox"."""
    head, mention, tail = text.partition(noun)
    tail = re.sub(rf"\ban? {noun}\b", f"the {noun}", tail)
    return head + mention + re.sub(rf"\bAn? {noun}\b", f"The {noun}", tail)


def _draft(rng: random.Random) -> str:
    """A story of any length."""
    is_animal = rng.random() < 0.3
    place = rng.choice(list(ANIMALS if is_animal else SETTINGS))
    setting = SETTINGS[place]
    person_plots = PERSON_PLOTS + OUTDOOR_PLOTS if setting.shelters else PERSON_PLOTS
    plot = rng.choice(ANIMAL_PLOTS if is_animal else person_plots)
    things = [thing for thing in setting.things if plot is not BROKEN or thing in BREAKABLE]
    values = _scene(setting, things, rng)
    values |= _animal(place, rng) if is_animal else _person(values["person"], rng)
    values |= dict(zip(("them", "their", "self", "was"), PRONOUNS[values["they"]], strict=False))
    with_a = ("object", "thing", "creature", "person", "other", "friend", "trait", "weather")
    values |= {f"a_{key}": with_article(values[key]) for key in with_a if key in values}

    talks = rng.random() < 0.4  # not every story that talks has a step to say
    is_scene = rng.random() < 0.5
    opening = rng.choice(SCENES if is_scene else HABITS)
    if is_scene:
        values["when"] = rng.choice(["", "", "Soon", "After a while,", "Then"])
    else:
        values["when"] = rng.choice(items("One day,; One {time},; One {weather} {time},; "
                                          "One {season} {time},"))
    if is_animal and "{kind}" not in opening:
        opening = opening.replace("{name}", "{name} the {kind}")
    sentences = [fill(opening, values, rng)]
    if rng.random() < 0.5:
        sentences.append(rng.choice(setting.details))
    sentences += [_sentence(wordings, talks, values, rng) for wordings in plot]
    text = " ".join(sentences)
    for noun in (values["person"], values["creature"], values["friend"], values.get("other", "animal")):
        text = _known_again(text, noun)
    return text


def story(rng: random.Random) -> str:
    """A story of 4 to 8 sentences and 40 to 90 words, in one paragraph; about every third one has dialogue.

    Args:
        rng: source of all choices; the same state gives the same story.

    Returns:
        The story, without a line break.
    """
    while True:
        text = _draft(rng)
        sentences = len(re.findall(r"[.!?]\"?(?= [A-Z\"]|$)", text))
        if 40 <= len(text.split()) <= 90 and 4 <= sentences <= 8:
            return text
