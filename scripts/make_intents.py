# ruff: noqa: E501  (the sentences are data, one subject a line)
"""Writes intents.csv and intents_test.csv: `python scripts/make_intents.py [FOLDER]`, by default into presets/samples.

Ten clearly distinct things people ask of an assistant, in English and Chinese. The training rows come
from a small grammar (frames and slot values) and a list of sentences written one by one; the held-out rows
are all written one by one, in other words, so that a score on them is no score on frames.
"""

import csv
import random
import sys
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[1] / "presets" / "samples"
SEED = 0
PER_LANGUAGE = 20

# Slot values by name, English and Chinese.
SLOTS = {
    "city": (
        "Paris|Tokyo|Berlin|Chengdu|Madrid|Shanghai|Boston|Rome|Seoul|Vienna",
        "北京|上海|成都|广州|东京|巴黎|昆明|西安|杭州|伦敦",
    ),
    "day": (
        "today|tomorrow|on Friday|this weekend|on Sunday|next Monday|tonight",
        "今天|明天|周五|这个周末|星期天|下周一|后天",
    ),
    "genre": (
        "jazz|some rock|classical music|a love song|something by the Beatles|piano music|quiet background music",
        "爵士乐|摇滚|古典音乐|周杰伦的歌|钢琴曲|儿歌|安静一点的音乐",
    ),
    "time": (
        "7 am|half past six|noon|5:45|eight o'clock|ten in the evening|6:15",
        "早上七点|六点半|中午十二点|五点四十五|八点整|晚上十点|六点一刻",
    ),
    "dish": (
        "a large pizza|two burgers|noodles with beef|sushi for three|fried rice|a vegetable curry|chicken soup",
        "一份大披萨|两个汉堡|牛肉面|三人份的寿司|蛋炒饭|一份麻辣烫|鸡汤",
    ),
    "phrase": (
        "good night|where is the station|I love this place|how much is it|see you soon|happy birthday",
        "晚安|车站在哪里|我喜欢这里|多少钱|回头见|生日快乐",
    ),
    "tongue": ("French|Japanese|German|Spanish|Chinese|Korean|Italian", "法语|日语|德语|西班牙语|英语|韩语|意大利语"),
    "sum": ("100|50|1,200|20|300|75", "一百|五十|一千二百|20|300|75"),
    "money": ("dollars|euros|pounds|yen|yuan|francs", "美元|欧元|英镑|日元|人民币|港币"),
    "room": ("kitchen|bedroom|living room|hall|garden|bathroom", "厨房|卧室|客厅|走廊|院子|浴室"),
    "goods": ("pair of shoes|new phone|book|winter coat|coffee machine|headset", "鞋子|新手机|书|羽绒服|咖啡机|耳机"),
    "being": ("cats|doctors|a penguin|teachers|computers|my boss", "猫|医生|企鹅|老师|电脑|老板"),
}

# {name} is a slot; every frame gives about the same number of rows.
FRAMES = {
    "weather": (
        "what's the weather like in {city} {day}|will it rain in {city} {day}?|Is it going to be cold {day}?|give me the forecast for {city}|How hot is it in {city} right now?"
        "|do I need an umbrella {day}|Will there be snow in {city} {day}?|temperature in {city}",
        "{city}{day}天气怎么样|{day}会下雨吗？|{city}现在多少度|查一下{city}的天气预报|{day}冷不冷？|{day}出门要带伞吗|{city}{day}会下雪吗|{day}有没有大风",
    ),
    "play_music": (
        "play {genre}|put on {genre} please|I want to listen to {genre}|Can you play {genre} in the {room}?|start my playlist|turn on some music|next song please|I'm in the mood for {genre}",
        "放一首{genre}|我想听{genre}|来点{genre}|播放{genre}|打开音乐，我要听{genre}|换一首歌|在{room}放{genre}|下一首",
    ),
    "set_alarm": (
        "set an alarm for {time}|wake me up at {time} {day}|Alarm at {time} please|I have to get up at {time}, set the alarm|Can you wake me at {time}?|make my alarm ring at {time} {day}|change my alarm to {time}",
        "定一个{time}的闹钟|{day}{time}叫我起床|把闹钟调到{time}|帮我设{day}{time}的闹钟|{time}叫醒我|我{time}要起床，定个闹钟|闹钟改成{time}",
    ),
    "book_flight": (
        "book a flight to {city} {day}|I need a plane ticket from {city} to {city}|Find me a cheap flight to {city}|reserve two seats on a plane to {city}|I want to fly to {city} {day}"
        "|are there any flights from {city} {day}?|get me a return ticket to {city}, by plane",
        "订一张去{city}的机票|{day}飞{city}的航班有哪些|我要买从{city}到{city}的机票|帮我找便宜的去{city}的航班|我想{day}坐飞机去{city}|预订两张飞{city}的票|去{city}的往返机票",
    ),
    "order_food": (
        "order {dish}|I'd like {dish} delivered|Get me {dish} please|can you order {dish} for dinner?|I'm hungry, order {dish}|bring me {dish} from the restaurant|one more order of {dish}",
        "点{dish}|我要订外卖，{dish}|帮我叫{dish}|晚饭点{dish}吧|我饿了，来{dish}|从饭馆订{dish}送过来|再加{dish}",
    ),
    "translate": (
        "translate '{phrase}' into {tongue}|how do you say {phrase} in {tongue}?|What is '{phrase}' in {tongue}?|I need this in {tongue}: {phrase}|put '{phrase}' into {tongue}|{tongue} translation of {phrase}",
        "把“{phrase}”翻译成{tongue}|“{phrase}”用{tongue}怎么说|{phrase}的{tongue}是什么？|帮我译成{tongue}：{phrase}|用{tongue}说{phrase}|请翻译一下“{phrase}”，要{tongue}",
    ),
    "exchange_rate": (
        "how much is {sum} {money} in {money}?|convert {sum} {money} to {money}|What's the exchange rate of {money} to {money}?|change {sum} {money} into {money}|rate for {money} {day}|How many {money} do I get for {sum} {money}?",
        "{sum}{money}等于多少{money}|{money}兑{money}的汇率是多少|把{sum}{money}换成{money}|{day}{money}汇率多少？|{sum}{money}能换多少{money}|查一下{money}对{money}的汇率",
    ),
    "lights": (
        "turn on the light in the {room}|switch off the {room} lights|Make it brighter in the {room}|dim the lamp in the {room}|lights off please|It's too dark in the {room}, turn on the lamp|set the {room} light to warm white",
        "打开{room}的灯|把{room}的灯关掉|{room}太暗了，开灯|调亮{room}的灯|关灯|把{room}的灯调暗一点|{room}的灯换成暖色",
    ),
    "track_package": (
        "where is my package|When will my {goods} arrive?|track the parcel with my {goods}|has my {goods} been shipped yet?|what's the status of my delivery|My parcel should have come {day}, where is it?|is the courier with my {goods} on the way?",
        "我的快递到哪了|{goods}什么时候送到？|查一下{goods}的物流|我买的{goods}发货了吗|我的包裹{day}能到吗|包裹怎么还没到|查询快递单号，是{goods}",
    ),
    "tell_joke": (
        "tell me a joke|Do you know a joke about {being}?|make me laugh|say something funny about {being}|I want to hear a funny story about {being}|got any good jokes {day}?|cheer me up with a joke about {being}",
        "讲个笑话|说个关于{being}的笑话|逗我笑一下|来个{being}的段子|你会讲{being}的笑话吗？|说点好笑的，关于{being}的|我不开心，讲个{being}的笑话",
    ),
}

WRITTEN = {
    "weather": """Is it raining where you are?|I'm going hiking, will it stay dry?|how windy is it by the sea|Do I need a jacket outside?|What's the temperature at the moment?|sunny or cloudy later?|when will this fog clear up|Any chance of thunderstorms this evening?|how warm will the afternoon be|is it still snowing
现在外面下雨吗|明后天会降温吗|早晚温差大不大|今天晒被子合适吗，有太阳吗|风大不大，能放风筝吗|现在气温是几度|雾什么时候散|晚上会打雷吗|下午热不热，要不要穿外套|周末是晴是雨""",
    "play_music": """I'd love to hear some violin|Play the song that goes la la la|put my favourite album on|can we have some party music|louder music please, that band again|Start the radio with old hits|sing me a song|play track five of this record|repeat this song|I want something to dance to
我想听一首老歌|放点欢快的|给孩子放首儿歌|这个歌手的歌再来一首|播放我喜欢的专辑|单曲循环这首|唱首歌给我听|打开收音机听歌|来一段小提琴|放首适合跳舞的曲子""",
    "set_alarm": """Don't let me sleep past seven|I need to be up early, wake me at five|ring me at 3 so I don't miss the train|add an alarm for every weekday at 6|remind me to get up in twenty minutes|turn off tomorrow's alarm and set it to ten|wake us all at dawn|Could you get me up before nine?|a wake-up alarm in one hour|set my morning alarm earlier
明早别忘了叫我|五点要赶火车，到时叫醒我|每个工作日六点响铃|二十分钟后叫我起来|闹铃提前半小时|关掉旧的闹钟，新定一个十点的|一小时以后响铃|九点之前把我叫起来|我怕睡过头，设个闹钟|早上的闹铃再早一点""",
    "book_flight": """What planes leave for Lima in the evening?|I'd like a seat to Cairo, economy class|Which airline has the cheapest fare to Athens?|fly me to Miami next week|book two business class tickets to Delhi|is there a direct flight to Oslo|We are flying home for Christmas, find tickets|an early morning flight, window seat|I must travel to Prague by air|look for departures from Munich airport
晚上有飞厦门的班机吗|我想买经济舱去悉尼|哪家航空公司去新加坡最便宜|下星期要飞曼谷，帮我订座|两张商务舱，去迪拜|有没有直达大连的飞机|过年回家，帮我抢机票|要早班机，靠窗|从浦东机场出发的航班|坐飞机去三亚要多少钱，帮我订""",
    "order_food": """Could somebody bring lunch to the office?|I want fish and chips at home|dinner for four from the Italian place|a cheeseburger and a cola, please|Send up some breakfast, eggs and toast|my stomach is rumbling, get me a snack|two coffees and a cake to go|let's have tacos delivered|same meal as last time from the diner|I fancy some dumplings
给我来份早餐送到公司|我想吃烤鱼|四个人的晚餐，从那家川菜馆订|一个汉堡一杯可乐|肚子咕咕叫，买点吃的|两杯咖啡带走|中午吃什么，点份盖饭吧|再来一份上次那家的水饺|想喝奶茶，帮我下单|加一份薯条""",
    "translate": """I don't know the Spanish word for bread|what does 'danke' mean|Tell me this sentence in Russian: it is late|how would you write hello in Arabic|Turn this text into English: 你在哪里|which word do the French use for cat|meaning of the Latin word luna|say thank you the Italian way|help me with this Japanese menu, in English please|I'd like to know 'cheers' in Swedish
面包的西班牙语怎么写|danke 是什么意思|这句话换成俄语：已经很晚了|阿拉伯语的你好怎么讲|把下面这段变成英文|法国人怎么称呼猫|这个拉丁词的意思是什么|意大利语里怎么道谢|看不懂日文菜单，译成中文|英语里“干杯”怎么说""",
    "exchange_rate": """I have 500 pesos, how much is it in dollars?|is the euro stronger than the dollar today|what would 80 pounds be worth in my currency|how many rupees is one dollar|Give me the current value of the yen|I need to know what 1,000 baht costs|price of a dollar in roubles|did the yuan rise or fall|what's the bank's rate for the krone|calculate 25 euros in Polish money
五百比索是多少美元|欧元今天比美元高多少|八十英镑折成人民币是多少|一美元等于多少卢比|日元现在值多少|换一千泰铢要花多少钱|卢布的牌价是多少|人民币升值了还是贬值了|银行今天的外汇牌价|二十五欧元合多少人民币""",
    "lights": """I can't see anything in here, light please|it's getting dark, lamps on|all the lights out, I'm going to bed|make the desk lamp brighter|the ceiling lamp is too bright, dim it|light up the stairs|switch the porch lamp to green|who left the light burning? switch it off|Could you lower the brightness a little|turn the chandelier on
这里什么都看不见，开一下灯|天黑了，把灯都打开|我要睡了，灯全关掉|台灯再亮一点|吸顶灯太亮，暗一点|照亮楼梯|门口的灯变成绿色|谁没关灯，帮我关上|亮度降低一些|开吊灯""",
    "track_package": """the postman has not come yet, where is my letter|I paid for express shipping, when does it come?|did you send off my order|What happened to the box I sent?|show me the delivery date|Has the parcel reached the depot?|My order number is 5512, is it out for delivery?|How long until the mail gets here?|the tracking page does not change|I expected the goods last week
邮递员还没来，我的信呢|加急的件几号能到|我的订单寄出了没有|我寄的箱子怎么样了|预计送达的日期是哪天|包裹到中转站了吗|订单号5512派送了吗|还要多久能收到货|快递信息一直不变|上周就该到的货在哪""",
    "tell_joke": """I could use a laugh|say something silly|entertain me with a funny tale|what's so funny? tell me one|have you heard the one about the two fish|make me giggle|another joke please, a better one|do you know any riddles that are funny|My friends need to laugh, any gags?|be funny for a minute
我想笑|说句傻话听听|讲个有意思的段子|两条鱼的那个笑话你听过吗|让我乐一下|再讲一个，要更好笑的|有没有搞笑的谜语|朋友聚会要逗大家笑，讲点什么|幽默一下|有什么搞笑的事""",
}

HELD_OUT = {
    "weather": """Should I wear a raincoat in London this afternoon?|how many degrees will we have at midday|Is the sun going to shine for our picnic?|any storms expected tonight|what is it like outside at the moment, warm or cold|Weather report for the coast, please
外面是晴天还是阴天|青岛的气温降了没有|这周哪天不下雨|今晚有台风吗|穿短袖会不会冷，气温多少|下午的天气适合爬山吗""",
    "play_music": """Let me hear the latest album by Adele|could you put a cheerful tune on|shuffle my favourite tracks|I feel like dancing, some disco songs please|Play that guitar song again|sing along time, start the karaoke list
给我来首欢快的曲子|循环播放我收藏的歌单|睡前想听点轻柔的歌|放邓丽君的《甜蜜蜜》|再放一遍刚才那首歌|有没有适合跑步的音乐，放起来""",
    "set_alarm": """I mustn't oversleep, ring the bell at 4:30 in the morning|get me out of bed at nine sharp|Add another alarm twenty minutes later|wake-up call for a quarter to seven, please|please cancel the old alarm and make a new one for 8:20|Could you make sure I am awake by five?
别让我睡过头，六点响铃|早晨五点二十把我叫醒|再加一个晚二十分钟的闹钟|工作日每天七点一刻响闹铃|午睡半小时以后叫我|取消原来的闹钟，重设九点""",
    "book_flight": """Two tickets on the earliest plane to Lisbon|Which airline goes from Munich to Oslo in the morning?|I'd like to travel to Sydney by air next month, book it|search for direct flights to New York under 500|Please reserve a window seat on the evening flight to Dublin|business class to Singapore, leaving on the ninth
下个月飞悉尼，帮我订票|最早一班去三亚的飞机几点起飞，订一张|要一个靠窗的座位，飞重庆的晚班机|有没有直飞纽约的航班|帮我买两张经济舱，目的地是曼谷|国庆回哈尔滨，坐飞机，看看票价""",
    "order_food": """I could eat a horse, have some ribs sent to my home|A salad and an orange juice for lunch, delivered|please get dumplings from the place round the corner|My usual dinner from the Thai restaurant, please|add a portion of chips to my meal order|We need sandwiches for ten people at the office
中午给办公室订十份盒饭|来一份宫保鸡丁，少放辣|肚子饿了，叫个外卖|我想吃饺子，送到家里|帮我点杯奶茶和一块蛋糕|照上次的菜单再点一单烤鸭""",
    "translate": """What would a Frenchman say for 'thank you very much'?|Say 'my name is Anna' in Russian|Please render this sentence in English: 我不知道|what does the German word Apfel mean in English|can you interpret 'no smoking' into Arabic for me|I want to tell her 'welcome home' in Portuguese, how?
这句话的俄语怎么讲：谢谢你|请问“apple”中文是什么意思|“祝你好运”译成阿拉伯语|想用葡萄牙语对她说欢迎回家，怎么说|帮我把这段英文翻成中文|“没关系”法文怎么写""",
    "exchange_rate": """What is one Swiss franc worth in US dollars?|I've got 400 Canadian dollars, what's that in euros|is the pound up or down against the yen|tell me today's price of the euro in rubles|If I change 60 euros, how many baht will I have?|value of 10 bitcoin in dollars
一瑞士法郎值多少美金|手上有四百加元，合多少欧元|英镑对日元涨了还是跌了|现在换卢布划算吗，比价是多少|六十欧能兑多少泰铢|一万韩币折合人民币多少钱""",
    "lights": """It's pitch black in the cellar, I can't see, lamp on|Could you put out the bedside lamp|Half brightness in the study, please|switch every lamp in the house off|make the dining room lamps blue|the light in the garage is still burning, turn it off
书房里看不见，把台灯点亮|所有房间的灯都熄掉|餐厅灯光调成蓝色|床头灯亮度一半|车库的灯还亮着，关了吧|太刺眼了，把吊灯弄暗些""",
    "track_package": """The mail carrier was supposed to bring my order yesterday|look up shipment number 88213|Did the box from my aunt leave the warehouse?|How far away is the thing I ordered online?|I'm still waiting for my order, any news of the delivery?|has the post delivered my letter to Grandma
单号88213现在在什么位置|我网上买的东西怎么还没收到|快递员今天几点来送货|寄给奶奶的信到了没有|仓库把我的订单发出来了吗|物流三天没更新了，帮我看看""",
    "tell_joke": """I'm bored, say something hilarious|What's the funniest thing you know?|know any good puns?|a knock-knock one, please|Amuse me with one about lawyers and sharks|My day was awful, I need a good laugh
好无聊啊，讲点搞笑的|你知道的最好笑的事是什么|来个冷笑话|今天心情很差，想笑一笑|有没有程序员的段子|说个谐音梗让我乐一乐""",
}


def rows_from_frames(label: str, rng: random.Random) -> list[str]:
    """PER_LANGUAGE different sentences a language, each frame used in turn."""
    made = []
    for side, frames in enumerate(FRAMES[label]):
        frames, found = frames.split("|"), []
        for turn in range(1000):
            text = _fill(frames[turn % len(frames)], side, rng)
            if text not in found:
                found.append(text)
            if len(found) == PER_LANGUAGE:
                break
        made += found
    return made


def _fill(frame: str, side: int, rng: random.Random) -> str:
    used = []
    while "{" in frame:
        start, end = frame.index("{"), frame.index("}")
        value = rng.choice([v for v in SLOTS[frame[start + 1 : end]][side].split("|") if v not in used])
        used.append(value)
        frame = frame[:start] + value + frame[end + 1 :]
    return frame


def _lines(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


def main() -> None:
    """The same two files on every machine."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    rng = random.Random(SEED)
    train = [(text, label) for label in FRAMES for text in (*rows_from_frames(label, rng), *_lines(WRITTEN[label]))]
    test = [(text, label) for label in FRAMES for text in _lines(HELD_OUT[label])]
    for name, rows in (("intents.csv", train), ("intents_test.csv", test)):
        rng.shuffle(rows)
        with (folder / name).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows([("text", "label"), *rows])
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
