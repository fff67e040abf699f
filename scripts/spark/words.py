"""The vocabulary of the synthetic conversations: common words, names, capitals, paths.

Everything here was written by hand for this model; no corpus is downloaded. The
generator combines these words, the tokenizer is trained on them, and the held-out
evaluation asks for combinations of them that training never shows.
"""

from __future__ import annotations

NOUNS = """
apple river stone table window garden bottle market bridge candle forest island letter mirror
pencil rabbit school street ticket valley winter yellow animal basket button camera castle cheese
circle coffee corner cotton desert dinner doctor dragon engine father feather finger flower friend
guitar hammer harbor helmet honey horse hotel jacket jungle kitchen ladder lemon lion machine
meadow metal minute monkey morning mother mountain museum music needle night number ocean office
onion orange orchard paper parrot pepper picture pillow planet pocket potato prince purple queen
rocket saddle salad sandwich season shadow ship shoulder signal silver singer sister spider spoon
spring square station storm story student sugar summer sunset teacher temple theater thunder tiger
tomato tower tractor train travel tree tunnel turtle uncle village violin voice wagon wall water
weather wheel whistle wind wolf woman wood world writer year zebra bird boat bone book boot bowl
box boy branch bread brick brother brush bus butter cake car card carpet cat chair chicken child
church city class clock cloud coat coin color computer cook copper corn country cow cup curtain
daughter day desk dog door dream dress drum duck ear earth egg evening eye face family farm field
fire fish flag floor food foot fox frog fruit game gate gift girl glass glove goat gold goose grape
grass hair hall hand hat head heart hill holiday home house ice ink iron jar juice key king kite
knee knife lake lamp land leaf leg library light line lip lock log lunch man map milk moon mouse
mouth nail name nest net nose nut oil owl page paint palace pan park party path peach pear pen
person phone piano pig pipe plane plant plate pond pool pot prize rain ring road roof room root
rope rose sail salt sand sea seat seed sheep shirt shoe shop sky snake snow soap sock soldier son
song soup star stick stove string sun sweater swim tail tape tea team tent thread throat toe tooth
town toy truck umbrella vase wave wing wire wool worm yard zoo anchor arrow autumn badge bag ball
balloon bamboo banana band bank barn basin bath beach bean bear beard bed bee beetle bell belt
bench berry bicycle blanket blossom board body border bottom bucket bug building bullet butterfly
cabin cable cactus cage calendar camel camp canal candy canoe captain carrot cave ceiling cellar
chain chalk cherry chess chest chin clay cliff cloth clown coach coast coconut collar compass
copy couch cousin crab cradle crane crayon cream creek crow crown crystal cube cupboard daisy dance
deer dish dock dollar dolphin donkey drawer eagle elbow elephant emerald envelope factory fence
fern fiddle flame flute fog fork fountain frame garlic ghost giant ginger giraffe globe grain
""".split()

THINGS = """
account action address album amount answer area article author backup batch block branch budget
bug cache call case cell channel chapter chart chat client cloud code column comment commit company
config contact content context cost count course customer data database date deadline default
detail device diary disk document domain draft driver email entry error event example export
expense factor feature file filter folder form format function goal graph group guide header
history host icon image index input invoice issue item job journal label language layer layout
level limit link list location log mail meeting member memory menu message method metric model
module month network node note notice object option order outline output owner package panel
parcel parent part password patch payment photo plan player playlist point policy post price
printer problem process product profile program project property query question queue quote
reader reason receipt recipe record region reminder reply report request reservation resource
response result review role route row rule sample scene schedule score screen script search
section sensor server service session setting shape sheet signal size slide song source space
speaker stage state status step stock storage stream style subject summary supplier survey symbol
system tab table tag target task team template term test text theme thread ticket time timer title
token tool topic total track trip type unit update user value variable vendor version video view
visit volume wallet warehouse website week widget word worker zone
""".split()

VERBS = """
get set find read write send make create delete remove update add list open close start stop show
search fetch load save move copy rename check count book buy sell order cancel plan play pause
resume translate convert compute print share post draw edit run build test deploy install pick
choose sort filter merge split join export import scan watch follow block invite assign approve
reject archive restore upload download convert measure track log record report review rate verify
lock unlock enable disable switch turn clean clear reset refresh sync publish schedule call ask
answer explain describe summarize paint mix cook wash fix repair lift push pull drop throw catch
bring carry hold lookup inspect compare submit collect deliver pack label mark name rank draft
""".split()

ADJECTIVES = """
big small red blue green white black brown pink golden bright dark quick slow happy sad brave calm
clever cold warm hot cool dry wet deep shallow early late easy hard empty full fast fine fresh
gentle good great heavy light high low kind large little long short loud quiet lucky new old nice
odd plain polite poor rich proud pure rare raw real ripe rough round royal safe sharp shiny shy
silent simple smart smooth soft solid sour spicy steep still strange strong sweet tall tame thick
thin tidy tiny tired tough true ugly vast weak wide wild wise wooden young final main local public
private daily weekly monthly first second third last next open secret special total urgent
""".split()

OTHER = """
about above across after again all almost along also always among and another any around as at
away back because become before began begin behind being below between both but by came can come
could did do does done down during each eat either else end enough even ever every far feel few
for found from gave give go going gone got had half has have he hear help her here him his how
if in inside instead into is it just keep knew know laugh learn leave less let like listen live
look lost love many may maybe me meet might mine more most much must my near need never no none
not nothing now of off often on once one only or other our out outside over own past please put
quite rather said same saw say see seem she should side since sing sit sleep smile so some soon
speak stand stay such sure take talk tell ten than thank that the their them then there these they
think this those though through to today together told tomorrow tonight too took toward tried try
two under until up upon us use used very wait walk want was way we well went were what when where
which while who why will with within without won work would wrote yes yesterday yet you your are
be an am been its that's don't I'm it's using used known called given above below hello hi thanks
goodbye bye welcome sorry okay sum plus word words following exactly phrase sentence capital
assistant helpful question tool tools function argument keys between reply
""".split()

NAMES = """
Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paul Quinn Rosa
Sam Tina Victor Wendy Xena Yuri Zoe Anna Ben Clara Daniel Elena Felix Gina Hugo Ivan Julia Kevin
Laura Martin Nora Oliver Peter Rita Simon Tom Ursula Vera Walter Adam Bella Chris Diana Eric Fiona
""".split()

CITIES = """
Berlin Paris London Madrid Rome Vienna Prague Oslo Lisbon Dublin Athens Tokyo Cairo Delhi Boston
Chicago Denver Seattle Austin Hamburg Munich Milan Venice Florence Geneva Zurich Porto Lyon Sydney
Toronto Dallas Miami Phoenix Osaka Kyoto Lagos Nairobi Lima Quito Bogota Havana Hanoi Seoul Krakow
""".split()

CAPITALS: dict[str, str] = dict(
    pair.split("=")
    for pair in """
France=Paris;Germany=Berlin;Spain=Madrid;Italy=Rome;Portugal=Lisbon;Austria=Vienna;Greece=Athens;
Norway=Oslo;Sweden=Stockholm;Denmark=Copenhagen;Finland=Helsinki;Poland=Warsaw;Hungary=Budapest;
Ireland=Dublin;Belgium=Brussels;Switzerland=Bern;Netherlands=Amsterdam;Japan=Tokyo;China=Beijing;
India=New Delhi;Russia=Moscow;Egypt=Cairo;Kenya=Nairobi;Canada=Ottawa;Mexico=Mexico City;
Brazil=Brasilia;Argentina=Buenos Aires;Chile=Santiago;Peru=Lima;Colombia=Bogota;Cuba=Havana;
Turkey=Ankara;Iran=Tehran;Iraq=Baghdad;Israel=Jerusalem;Thailand=Bangkok;Vietnam=Hanoi;
Indonesia=Jakarta;Philippines=Manila;Australia=Canberra;New Zealand=Wellington;Ukraine=Kyiv;
Romania=Bucharest;Bulgaria=Sofia;Serbia=Belgrade;Croatia=Zagreb;Iceland=Reykjavik;Morocco=Rabat;
Nigeria=Abuja;Ghana=Accra;Ethiopia=Addis Ababa;South Korea=Seoul;Pakistan=Islamabad;Nepal=Kathmandu;
Czechia=Prague;Slovakia=Bratislava;Slovenia=Ljubljana;Estonia=Tallinn;Latvia=Riga;
Lithuania=Vilnius;Ecuador=Quito;Venezuela=Caracas;Uruguay=Montevideo;Jordan=Amman
""".replace("\n", "").split(";")
)

NUMBER_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen
""".split()

TOOL_VERBS = """
get set find read write send make create delete remove update add list open close start stop show
search fetch load save move copy rename check count book buy order cancel plan play pause translate
convert compute print share post draw edit run build test pick sort filter merge split export
import scan watch follow invite assign archive restore upload download measure track log review
verify lock enable schedule call describe inspect compare submit deliver pack label mark rank draft
""".split()

TOOL_NOUNS = """
weather time price order ticket room file note user email message report song photo image video
page table flight hotel train parcel stock city country map route event meeting task list word text
number color animal plant recipe car bike house door light lamp alarm timer camera printer server
database record account invoice payment budget product customer contact address document folder
project branch commit issue comment review book movie album playlist game score team player school
course student teacher letter phone calendar reminder garden tree river lake bridge station engine
battery sensor signal device machine robot box bag bottle cup plate menu dinner lunch coffee member
index query cache config log process service network model backup key password profile session
""".split()

PARAMS = """
name title city country date day month year time color size price amount count limit number unit
user owner author email address phone message text content body subject topic query keyword term
pattern path file folder source target from to destination origin language format type kind mode
level status state tag label category group team project branch version id code key value item
product quantity room floor seat recipient sender person animal plant food drink song artist genre
album book chapter page word letter speed width height depth weight length distance duration
""".split()

TEXT_PARAMS = ("text", "content", "message", "body", "subject", "title", "query", "note", "comment")

DIRS = """
etc tmp usr var home opt src lib bin data docs tests app config logs public static images scripts
local share www build dist assets models views utils core api server client tools notes reports
backup music photos videos projects work music cache mail games books
""".split()

STEMS = """
hosts passwd notes readme main app index config setup test utils report data log server client
todo list users model view style settings summary draft letter plan budget invoice photo image
song video chapter story recipe table results output input example hello script build release
""".split()

EXTENSIONS = (
    "txt md py js ts json yaml toml cfg conf log csv html css sh c rs go java xml sql png".split()
)

COMMANDS = """
ls;pwd;date;whoami;make;uptime;env;df;ps;top;id;hostname;ls -l;ls -la;git status;git log;git diff;
git pull;npm install;npm test;pip list;pytest -q;python main.py;make test;make build;cargo build;
cargo test;go build;cat notes.txt;echo hello;mkdir build;rm -rf build;df -h;free -m;ps aux;uname -a;
cp a.txt b.txt;touch file.txt;grep error log.txt;head -n 5 data.csv;wc -l notes.md;docker ps;
node index.js;git add .;git branch;pip install flask;sort names.txt;find . -name test;ls src
""".replace("\n", "").split(";")

COMMON = sorted(set(NOUNS + THINGS + VERBS + ADJECTIVES) - {"the"})
