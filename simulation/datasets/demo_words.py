"""The words of the demo's invented films: twenty strands, each with its own vocabulary, era and directors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strand:
    """A kind of film.

    Attributes
    ----------
    label
        What a friend would call it; follows "a dark ..." in a description.
    genres
        Genres of all its films.
    years
        First and last year.
    adjectives, nouns, tails
        Titles are "The {adjective} {noun}", "{adjective} {noun}" and "{noun} {tail}".
    sagas
        Names of its franchises.
    plots
        What a description ends with.
    directors
        Who makes these films.
    """

    label: str
    genres: tuple[str, ...]
    years: tuple[int, int]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    tails: tuple[str, ...]
    sagas: tuple[str, ...]
    plots: tuple[str, ...]
    directors: tuple[str, ...]


MOODS = ("dark", "witty", "tense", "warm", "dreamy", "gritty")


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";"))


def _strand(
    label: str, genres: str, years: tuple[int, int], words: tuple[str, str, str], rest: tuple[str, str, str]
) -> Strand:
    adjectives, nouns, tails = map(_words, words)
    sagas, plots, directors = map(_words, rest)
    return Strand(label, _words(genres), years, adjectives, nouns, tails, sagas, plots, directors)


STRANDS: tuple[Strand, ...] = (
    _strand(
        "space adventure", "Adventure; Science Fiction", (1974, 2024),
        ("Silent; Distant; Burning; Last; Outer; Frozen; Broken; Golden",
         "Orbit; Nebula; Horizon; Star; Signal; Comet; Galaxy; Voyager; Eclipse; Moon",
         "of Andromeda; beyond Titan; at World's Edge; over Europa; of the Seventh Sun; in the Void"),
        ("Starfall; Ion Raiders; The Helios Fleet",
         "a stranded crew must find a way home; a smuggler carries the last map of the colonies; two pilots race "
         "a dying sun; a cadet hears a call from a dead ship",
         "Ida Renner; Marcus Oyelaran; Tove Lindqvist"),
    ),
    _strand(
        "cyber noir", "Science Fiction; Thriller", (1982, 2024),
        ("Neon; Chrome; Hollow; Second; Synthetic; Zero; Borrowed; Static",
         "Protocol; Memory; Circuit; Ghost; Machine; Mirror; Cipher; Network; Shadow; Code",
         "in the Rain; of Glass; after Midnight; without a Face; on Level Nine; for Sale"),
        ("Override; Wirefall; Blackout City",
         "a detective doubts that his past is his own; a courier carries a mind across the city; a hacker is hunted "
         "by her own copy; an android asks for a lawyer",
         "Kenji Moravec; Lena Voss; Adrian Sokol"),
    ),
    _strand(
        "time-travel puzzle", "Mystery; Science Fiction", (1985, 2024),
        ("Thirteenth; Missing; Double; Inverse; Lost; Perpetual; Crooked; Final",
         "Hour; Tuesday; Paradox; Clock; Yesterday; Loop; Minute; Calendar; Century; Echo",
         "before Dawn; Twice Over; in Reverse; of Tomorrow; without End; at Noon"),
        ("Rewind; The Mobius Affair; Day Zero",
         "a physicist meets herself too early; a town repeats one afternoon; a watchmaker mends more than clocks; "
         "a letter arrives before it is written",
         "Priya Anand; Tomas Hrabal; Grace Whitlow"),
    ),
    _strand(
        "haunted-house story", "Horror; Mystery", (1961, 2024),
        ("Whispering; Empty; Cold; Forgotten; Pale; Locked; Weeping; Hidden",
         "House; Cellar; Nursery; Door; Attic; Portrait; Staircase; Guest; Lantern; Garden",
         "on Harrow Hill; at Ravenmoor; under the Floor; in the Walls; by Candlelight; of Ashdown"),
        ("Ravenmoor; The Visitor Upstairs; Hollowgate",
         "a family hears footsteps above an empty floor; a widow inherits a room that is on no plan; a boy talks to "
         "someone in the well; a caretaker finds his own grave",
         "Edmund Crane; Sofia Belmonte; Agnes Thorne"),
    ),
    _strand(
        "slasher film", "Horror; Thriller", (1976, 2023),
        ("Bloody; Midnight; Savage; Screaming; Deadly; Crimson; Silent; Wicked",
         "Camp; Harvest; Prom; Mask; Lake; Reunion; Carnival; Weekend; Hook; Blade",
         "at Cedar Lake; on Elm Road; in Section Nine; of Fear; Next Door; before Sunrise"),
        ("Cedar Lake; The Ferryman; Night Shift",
         "five friends share one way out of the woods; a babysitter counts the callers; a masked stranger returns "
         "each October; a school reunion gets smaller by the hour",
         "Rick Dalloway; Mona Castell; Victor Paine"),
    ),
    _strand(
        "heist caper", "Comedy; Crime", (1964, 2024),
        ("Perfect; Crooked; Velvet; Clever; Marble; Borrowed; Diamond; Gentle",
         "Job; Vault; Swindle; Thief; Score; Getaway; Alibi; Safe; Forgery; Switch",
         "in Monaco; for Beginners; at the Ritz; on the Riviera; before Breakfast; of the Decade"),
        ("The Velvet Crew; Easy Money; Six to Go",
         "a retired thief is talked into one last job; a cook and a con man rob the wrong bank; six strangers steal "
         "the same painting; a locksmith falls for the guard",
         "Ines Okafor; Danny Marchetti; Claude Perrin"),
    ),
    _strand(
        "mob saga", "Crime; Drama", (1968, 2022),
        ("Bitter; Silver; Honest; Old; Loyal; Red; Quiet; Heavy",
         "Family; Debt; Oath; Brothers; Empire; Streets; Blood; Wedding; Territory; Sons",
         "of Naples; on Mulberry Street; in Exile; of the Harbour; without Honour; and Sons"),
        ("The Carbone Family; Dockside; Kings of Palermo",
         "a son returns to a trade he swore to leave; a bookkeeper knows where the money went; two brothers divide a "
         "harbour; a driver learns to keep secrets",
         "Salvatore Greco; Anna Lombardi; James Costigan"),
    ),
    _strand(
        "cosy whodunit", "Comedy; Mystery", (1955, 2024),
        ("Curious; Poisoned; Polite; Vanishing; Missing; Seventh; Charming; Unlikely",
         "Vicar; Teapot; Guest; Colonel; Parcel; Butler; Rose; Heiress; Parrot; Will",
         "at Teatime; in the Library; of Little Marlow; on the Night Train; by Post; among Friends"),
        ("Miss Pettigrew Investigates; Little Marlow; The Orient Club",
         "a village fete ends with one guest too few; a retired teacher reads the butler's diary; a train stops "
         "between stations with a body aboard; a will names the wrong niece",
         "Dorothy Hale; Philip Ashworth; Beatrix Lowe"),
    ),
    _strand(
        "courtroom drama", "Drama; Thriller", (1957, 2023),
        ("Reasonable; Sworn; Final; Silent; Blind; Hostile; Closing; Burden of",
         "Verdict; Witness; Doubt; Jury; Appeal; Testimony; Motion; Evidence; Counsel; Justice",
         "for the Defence; of the People; under Oath; in Chambers; on Trial; beyond Doubt"),
        ("Benchmark; The Halloran Cases; State of Proof",
         "a young lawyer defends the man who ruined her father; one juror will not be hurried; a judge recognises "
         "the witness; a small town sues its only employer",
         "Walter Brandt; Naomi Feldman; Harold Quince"),
    ),
    _strand(
        "romantic comedy", "Comedy; Romance", (1959, 2024),
        ("Accidental; Almost; Perfect; Second; Summer; Impossible; Sunday; Wrong",
         "Wedding; Date; Bride; Neighbour; Kiss; Roommate; Proposal; Valentine; Bouquet; Plus-One",
         "in Paris; on the Third Floor; for Two; by Mistake; before Christmas; Next Door"),
        ("Table for Two; The Plus-One; Love by Post",
         "two rivals must plan one wedding; a florist answers letters meant for someone else; a fake engagement "
         "lasts one dinner too long; neighbours share a wall and a secret",
         "Nora Bellamy; Hugo Santos; Katie Winslow"),
    ),
    _strand(
        "period romance", "Drama; Romance", (1951, 2024),
        ("Tender; Distant; Winter; Faithful; Autumn; Lost; Unspoken; Last",
         "Letters; Heart; Promise; Estate; Season; Waltz; Harbour; Orchard; Portrait; Sonata",
         "of Lady Ashby; in Vienna; at Fairhaven; by the Sea; of Spring; after the War"),
        ("Fairhaven; The Ashby Letters; A Season in Bath",
         "a governess hides her name; letters cross an ocean for forty years; a pianist returns to the house she was "
         "sent from; a captain keeps a promise too late",
         "Margaret Elwood; Julien Lacroix; Amara Hughes"),
    ),
    _strand(
        "slapstick comedy", "Comedy", (1952, 2022),
        ("Clumsy; Runaway; Crazy; Upside-Down; Lucky; Loud; Flying; Hopeless",
         "Plumber; Uncle; Holiday; Circus; Taxi; Waiter; Vacation; Janitor; Sofa; Parade",
         "Goes Wild; on Wheels; in Trouble; Strikes Back; at Sea; Takes a Bath"),
        ("Uncle Barney; Out of Order; Hotel Chaos",
         "a plumber floods an embassy; a family holiday misses every train; a waiter is mistaken for a count; twins "
         "apply for the same job",
         "Buddy Malone; Greta Pfister; Oscar Trumbull"),
    ),
    _strand(
        "sword-and-sorcery epic", "Adventure; Fantasy", (1963, 2024),
        ("Iron; Enchanted; Ancient; Fallen; Crystal; Shadow; Emerald; Nameless",
         "Sword; Dragon; Crown; Kingdom; Tower; Sorcerer; Throne; Prophecy; Forest; Rune",
         "of Eldermere; beyond the Mist; of the North; of Ash and Snow; at the Gate; of Seven Kings"),
        ("Eldermere; The Ember Throne; Runeward",
         "a shepherd draws a blade that should not exist; an exiled queen bargains with a dragon; three thieves "
         "steal a prophecy; a wizard forgets his name",
         "Gareth Llewellyn; Freya Halvorsen; Rowan Tull"),
    ),
    _strand(
        "fairy-tale animation", "Animation; Fantasy", (1954, 2024),
        ("Little; Sleeping; Magic; Paper; Moonlit; Tiny; Singing; Starlit",
         "Princess; Owl; Lantern; Mermaid; Snowflake; Giant; Clockmaker; Seed; Swan; Wish",
         "of the Woods; and the Moon; in the Snow; under the Hill; of Winterland; who Could Fly"),
        ("Winterland; Lily and the Moon; The Tinder Fox",
         "a girl borrows the moon for a night; a paper prince fears the rain; a village forgets how to sing; an owl "
         "guards the last wish",
         "Hana Mizuno; Elsie Marlowe; Pavel Dvorak"),
    ),
    _strand(
        "talking-animal cartoon", "Animation; Comedy", (1960, 2024),
        ("Brave; Sneaky; Turbo; Grumpy; Mighty; Fluffy; Big; Disco",
         "Hamster; Penguin; Raccoon; Llama; Hedgehog; Beaver; Goose; Otter; Pug; Tortoise",
         "to the Rescue; in the City; on Ice; Goes to Space; and Friends; at the Zoo"),
        ("Pip the Hamster; Zoo Crew; Captain Goose",
         "a house pet gets lost downtown; a zoo elects a mayor; a penguin is afraid of the cold; a tortoise enters "
         "the race again",
         "Chip Delaney; Rosa Jimenez; Bo Andersen"),
    ),
    _strand(
        "western", "Adventure; Western", (1950, 2019),
        ("Dusty; Lonesome; High; Dry; Bitter; Lone; Iron; Scarlet",
         "Rider; Canyon; Marshal; Mesa; Outlaw; Ranch; Trail; Bounty; Stagecoach; Creek",
         "to Abilene; of Red Rock; at Sundown; west of the Pecos; without a Badge; on the Prairie"),
        ("Red Rock; The Drifter; Gunsmoke Valley",
         "a marshal has until noon; a drifter buys back his horse; two sisters hold a ranch alone; an outlaw writes "
         "his own wanted poster",
         "Clay Harmon; Hank Sturgis; Ruth Calloway"),
    ),
    _strand(
        "war drama", "Drama; War", (1953, 2023),
        ("Long; Forgotten; Iron; Broken; Last; Muddy; Distant; Unknown",
         "Bridge; Regiment; Winter; Letters; March; Soldier; Trench; Border; Convoy; Armistice",
         "at Dunmore; of the Ardennes; across the Rhine; from the Front; of Company B; before the Thaw"),
        ("Company B; The Long Winter; Bridgehead",
         "a platoon holds a bridge that both sides need; a medic keeps a diary for the fallen; a deserter guides his "
         "pursuers home; a truce lasts one night",
         "Otto Reinhardt; William Tarrant; Irina Volkova"),
    ),
    _strand(
        "spy thriller", "Thriller; War", (1958, 2024),
        ("Double; Cold; Hidden; Berlin; Scarlet; Northern; Sleeping; Broken",
         "Agent; Dossier; Courier; Defector; Ambassador; Cipher; Checkpoint; Mole; Passport; Directive",
         "in Vienna; from Minsk; at Zero Hour; under Cover; of Istanbul; in the Snow"),
        ("The Lazarus Dossier; Agent Marlowe; Checkpoint",
         "a translator hears one word too many; an agent is ordered to find himself; a defector brings the wrong "
         "list; a radio operator answers a dead colleague",
         "Ilse Kramer; Peter Garrick; Yuri Malenko"),
    ),
    _strand(
        "nature documentary", "Documentary", (1966, 2024),
        ("Wild; Hidden; Deep; Blue; Frozen; Living; Secret; Endless",
         "Ocean; Savanna; Reef; Forest; Migration; Desert; River; Tundra; Canopy; Islands",
         "of the Amazon; from Above; in Winter; of the Arctic; at Night; after the Rain"),
        ("Our Living Planet; Great Migrations; Below the Surface",
         "a herd crosses a drying land; a reef lives through a single year; wolves return to a valley; a river is "
         "followed from ice to sea",
         "Jane Merrick; Thabo Nkosi; Lars Ekman"),
    ),
    _strand(
        "music film", "Documentary; Drama", (1969, 2024),
        ("Electric; Blue; Loud; Velvet; Unplugged; Golden; Broken; Backstage",
         "Rhythm; Guitar; Vinyl; Tour; Chorus; Microphone; Encore; Trumpet; Jukebox; Bassline",
         "in Harlem; on the Road; of New Orleans; at Full Volume; in B Minor; without Applause"),
        ("Encore; The Blue Note Sessions; Amplified",
         "a band records its last album in a barn; a trumpeter leaves the stage for ten years; a tour bus breaks "
         "down in the right town; a forgotten singer hears her own sample",
         "Miles Beaumont; Carla Reyes; Sid Hargrove"),
    ),
)  # fmt: skip
