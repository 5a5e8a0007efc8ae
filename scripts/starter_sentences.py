# ruff: noqa: E501  (the sentences are data, one subject a line)
"""Everyday sentences and short chats for the starter model, made by a small seeded grammar.

Manuals teach grammar but few everyday words, and no chat at all. Here are both: runs of sentences that
stay on one subject, and ChatML dialogues with short answers (repeat a word, pick the fruit, the
opposite, what a word is in the other language, what it means). None of them names a label of the sample
intents, and make_starter.py drops any sentence that stands in a sample file.
"""

import random
from collections.abc import Iterator

# Bilingual words by kind; the kinds are the slots of the sentences below.
WORDS = {
    "fruit": "apple 苹果,banana 香蕉,orange 橙子,grape 葡萄,pear 梨,peach 桃子,lemon 柠檬,mango 芒果,watermelon 西瓜,strawberry 草莓,cherry 樱桃,pineapple 菠萝,plum 李子",
    "animal": "dog 狗,cat 猫,horse 马,cow 牛,sheep 羊,pig 猪,chicken 鸡,duck 鸭子,bird 鸟,fish 鱼,rabbit 兔子,tiger 老虎,lion 狮子,elephant 大象,monkey 猴子,bear 熊,wolf 狼,snake 蛇,mouse 老鼠,panda 熊猫",
    "food": "rice 米饭,bread 面包,noodles 面条,dumplings 饺子,soup 汤,salad 沙拉,beef 牛肉,pork 猪肉,eggs 鸡蛋,cheese 奶酪,pizza 披萨,hamburger 汉堡,sandwich 三明治,tofu 豆腐,fried rice 炒饭,hot pot 火锅,fried chicken 炸鸡,steak 牛排,porridge 粥,sushi 寿司,cake 蛋糕,ice cream 冰淇淋",
    "drink": "tea 茶,coffee 咖啡,water 水,milk 牛奶,juice 果汁,beer 啤酒,wine 葡萄酒,cola 可乐,milk tea 奶茶,soy milk 豆浆",
    "colour": "red 红色,blue 蓝色,green 绿色,yellow 黄色,white 白色,black 黑色,purple 紫色,orange 橙色,pink 粉色,grey 灰色,brown 棕色",
    "city": "Beijing 北京,Shanghai 上海,Guangzhou 广州,Shenzhen 深圳,Hangzhou 杭州,Chengdu 成都,Nanjing 南京,Wuhan 武汉,Xi'an 西安,Hong Kong 香港,Tokyo 东京,Seoul 首尔,Singapore 新加坡,London 伦敦,Paris 巴黎,Berlin 柏林,Rome 罗马,Madrid 马德里,New York 纽约,Chicago 芝加哥,Boston 波士顿,Sydney 悉尼,Moscow 莫斯科,Dubai 迪拜,Toronto 多伦多,Vienna 维也纳",
    "country": "China 中国,Japan 日本,Korea 韩国,France 法国,Germany 德国,Italy 意大利,Spain 西班牙,England 英国,America 美国,Canada 加拿大,Australia 澳大利亚,Russia 俄罗斯,India 印度,Brazil 巴西,Thailand 泰国,Egypt 埃及",
    "language": "Chinese 中文,English 英语,French 法语,German 德语,Spanish 西班牙语,Italian 意大利语,Japanese 日语,Korean 韩语,Russian 俄语,Arabic 阿拉伯语",
    "money": "dollars 美元,euros 欧元,pounds 英镑,yen 日元,yuan 人民币,francs 法郎,rubles 卢布,won 韩元,Hong Kong dollars 港币",
    "room": "kitchen 厨房,bedroom 卧室,living room 客厅,bathroom 浴室,study 书房,garden 花园,hall 走廊,garage 车库,balcony 阳台,dining room 餐厅,office 办公室",
    "thing": "table 桌子,chair 椅子,bed 床,lamp 台灯,door 门,window 窗户,clock 钟,mirror 镜子,sofa 沙发,desk 书桌,shelf 架子,carpet 地毯,curtain 窗帘,fan 风扇,fridge 冰箱,oven 烤箱,computer 电脑,phone 手机,book 书,pen 笔,cup 杯子,plate 盘子,bag 包,box 盒子,key 钥匙,umbrella 雨伞",
    "clothes": "shirt 衬衫,coat 外套,hat 帽子,shoes 鞋子,dress 裙子,trousers 裤子,gloves 手套,scarf 围巾,socks 袜子,sweater 毛衣",
    "job": "teacher 老师,doctor 医生,nurse 护士,driver 司机,cook 厨师,farmer 农民,engineer 工程师,writer 作家,singer 歌手,painter 画家,soldier 士兵,lawyer 律师,pilot 飞行员,courier 快递员",
    "family": "mother 妈妈,father 爸爸,sister 姐姐,brother 哥哥,grandmother 奶奶,grandfather 爷爷,aunt 阿姨,uncle 叔叔,son 儿子,daughter 女儿,friend 朋友,neighbour 邻居,colleague 同事",
    "instrument": "piano 钢琴,guitar 吉他,violin 小提琴,drum 鼓,flute 笛子,trumpet 小号",
    "music": "jazz 爵士乐,rock 摇滚乐,pop music 流行音乐,classical music 古典音乐,folk songs 民歌,country music 乡村音乐,light music 轻音乐,old songs 老歌",
    "vehicle": "car 汽车,bus 公交车,train 火车,plane 飞机,ship 船,bicycle 自行车,taxi 出租车,subway 地铁,truck 卡车",
    "day": "Monday 星期一,Tuesday 星期二,Wednesday 星期三,Thursday 星期四,Friday 星期五,Saturday 星期六,Sunday 星期天,today 今天,tomorrow 明天,yesterday 昨天,next week 下周,the weekend 周末",
    "month": "January 一月,February 二月,March 三月,April 四月,May 五月,June 六月,July 七月,August 八月,September 九月,October 十月,November 十一月,December 十二月",
    "number": "one 一,two 二,three 三,four 四,five 五,six 六,seven 七,eight 八,nine 九,ten 十,twenty 二十,thirty 三十,fifty 五十,one hundred 一百,one thousand 一千",
    "sky": "rain 雨,snow 雪,wind 风,cloud 云,sun 太阳,fog 雾,storm 暴风雨,thunder 雷,ice 冰,moon 月亮,star 星星",
    "feeling": "happy 高兴,sad 难过,angry 生气,tired 累,hungry 饿,thirsty 渴,afraid 害怕,bored 无聊,excited 兴奋,busy 忙,calm 平静",
    "sport": "football 足球,basketball 篮球,tennis 网球,swimming 游泳,running 跑步,skiing 滑雪,table tennis 乒乓球,badminton 羽毛球,yoga 瑜伽",
    "body": "head 头,hand 手,foot 脚,eye 眼睛,ear 耳朵,nose 鼻子,mouth 嘴,leg 腿,back 背,stomach 胃,tooth 牙齿,heart 心脏",
    "verb": "run 跑,walk 走,eat 吃,drink 喝,sleep 睡觉,read 读,write 写,listen 听,sing 唱歌,dance 跳舞,laugh 笑,cry 哭,buy 买,sell 卖,open 打开,close 关闭,wait 等待,send 寄,receive 收到,cook 做饭,wake up 起床,fly 飞,drive 开车,learn 学习,teach 教,help 帮助,ask 问,answer 回答,forget 忘记,remember 记得",
}
PAIRS = {kind: [tuple(item.rsplit(" ", 1)) for item in row.split(",")] for kind, row in WORDS.items()}
OPPOSITES = [
    ("big 大", "small 小"),
    ("hot 热", "cold 冷"),
    ("bright 明亮", "dark 黑暗"),
    ("fast 快", "slow 慢"),
    ("high 高", "low 低"),
    ("long 长", "short 短"),
    ("new 新", "old 旧"),
    ("good 好", "bad 坏"),
    ("open 开", "closed 关"),
    ("early 早", "late 晚"),
    ("expensive 贵", "cheap 便宜"),
    ("full 满", "empty 空"),
    ("happy 高兴", "sad 难过"),
    ("easy 容易", "hard 难"),
    ("loud 大声", "quiet 安静"),
    ("clean 干净", "dirty 脏"),
    ("dry 干", "wet 湿"),
    ("heavy 重", "light 轻"),
    ("strong 强", "weak 弱"),
    ("left 左", "right 右"),
    ("up 上", "down 下"),
    ("day 白天", "night 夜晚"),
    ("begin 开始", "end 结束"),
    ("buy 买", "sell 卖"),
    ("rich 富", "poor 穷"),
    ("thick 厚", "thin 薄"),
    ("inside 里面", "outside 外面"),
    ("first 第一", "last 最后"),
    ("true 真", "false 假"),
    ("arrive 到达", "leave 离开"),
]
CAPITALS = [
    ("China 中国", "Beijing 北京"),
    ("Japan 日本", "Tokyo 东京"),
    ("France 法国", "Paris 巴黎"),
    ("Germany 德国", "Berlin 柏林"),
    ("Italy 意大利", "Rome 罗马"),
    ("Spain 西班牙", "Madrid 马德里"),
    ("England 英国", "London 伦敦"),
    ("Russia 俄罗斯", "Moscow 莫斯科"),
    ("Korea 韩国", "Seoul 首尔"),
    ("Thailand 泰国", "Bangkok 曼谷"),
    ("Egypt 埃及", "Cairo 开罗"),
    ("Canada 加拿大", "Ottawa 渥太华"),
    ("Australia 澳大利亚", "Canberra 堪培拉"),
    ("Austria 奥地利", "Vienna 维也纳"),
]

# Runs of sentences on one subject, so that words of one subject are met together. {kind} is a word, {n} a number,
# {time} an hour.
SUBJECTS_EN = {
    "sky": """The sky over {city} was grey and it rained all {day}.|It was sunny in {city}, about {n} degrees.|The forecast says snow on {day}.|Take an umbrella, it looks like rain.
A cold wind blew from the north and the temperature fell below zero.|Is it warm outside?|Clouds came up in the afternoon and then there was a storm.|In {month} it is usually hot and humid in {city}.
The fog was so thick that we could not see the street.|People in {city} like dry and sunny days.|Put on a {clothes}, it is freezing.|After the rain the air was fresh and clear.|How cold does it get in {country} in {month}?""",
    "songs": """My {family} plays the {instrument} every evening.|We listened to {music} on the radio.|She sang a song and everybody clapped.|The band gave a concert in {city}.|Turn the volume down, please.
I like {music} more than {music}.|The album has ten tracks, and the first song is the best.|He put on his headphones and started the playlist.|The singer has a beautiful voice.|That tune has been in my head since {day}.
They danced to {music} until {time}.|A {instrument} is not easy to play.|The next song was slow and sad.""",
    "morning": """I get up at {time} every morning.|The alarm clock rang at {time}, but I went on sleeping.|She woke up early on {day}.|He was late because his clock had stopped.|Remind your {family} to get up before {time}.
The bell rings at {time} sharp.|I need {n} more minutes of sleep.|He sets his watch by the radio.|My {family} never oversleeps.|Breakfast is ready at {time}.|We took a nap after lunch and woke up at {time}.|The timer beeped after {n} minutes.""",
    "travel": """The plane from {city} to {city} leaves at {time}.|They bought two tickets to {country}.|The flight takes {n} hours.|We flew back from {city} on {day}.|Our seats were by the window.
The airport is far from the centre of {city}.|My {family} travels to {country} every {month}.|The airline cancelled the flight because of fog.|He went by {vehicle} and she went by {vehicle}.|A return ticket is cheaper.
Passengers to {city}, please go to gate {n}.|She packed her {clothes} and her passport.|We stayed at a small hotel in {city} for {n} nights.|The train to {city} was late.""",
    "eating": """We had {food} and {food} for dinner.|The restaurant near the office makes good {food}.|A cup of {drink} and some {food}, that is my lunch.|The waiter brought the menu.|My {family} cooks {food} on {day}.
I am hungry, let us eat something.|The delivery man brought the {food} while it was hot.|Would you like {drink} or {drink}?|The {food} was too salty.|They ordered {food} for four people.|She does not eat meat.
Add some sugar to the {drink}.|Fresh {fruit} tastes best in {month}.|The cook cut the {fruit} into small pieces.|Lunch is served at {time}.""",
    "words": """Her {family} speaks {language} and {language}.|What does this word mean?|He is learning {language} at school.|The book was written in {language} and then translated.|I do not understand this sentence.
A dictionary explains the words of a language.|The interpreter translated every sentence into {language}.|How do you say thank you in {language}?|My {language} is poor, please speak slowly.|The {language} word for {thing} is hard to pronounce.
They talked in {language} the whole evening.|The sign was in {language}, so nobody could read it.|She writes letters in {language}.""",
    "cash": """A hundred {money} is a lot of money.|The bank changes {money} into {money}.|The rate of the {money} fell on {day}.|He paid {n} {money} for the {thing}.|How much is that in {money}?|Prices in {country} have risen.
She saved {n} {money} a month.|The {money} is strong against the {money} this year.|We have only {money} with us, no {money}.|The {clothes} cost {n} {money}.|The exchange office at the airport takes a fee.|My {family} lent me {n} {money}.""",
    "house": """The lamp in the {room} is too bright.|It is dark in the {room}.|Somebody left the light on in the {room}.|He switched off the lamp and went to bed.|The {thing} stands in the {room}.|She opened the curtain of the {room} to let in the light.
The bulb in the {room} is broken.|We painted the {room} {colour}.|The {thing} is next to the {thing}.|There is a {colour} {thing} in the {room}.|Close the window of the {room} before you leave.|The switch is beside the door.
My {family} cleans the {room} on {day}.|The new house has {n} rooms.""",
    "post": """The parcel arrived on {day}.|The courier left the package at the door.|I sent a letter to my {family} in {city}.|The delivery is late, it should have come on {day}.|The box was shipped from {city} and passed through {city}.
The tracking number is on the receipt.|We ordered a {thing} and {n} days later it came.|The post office closes at {time}.|The package was lost on the way.|Please sign here for your parcel.|She bought a {clothes} in an online shop.
He waited at home for the delivery of the {thing}.|The address on the box was wrong.""",
    "fun": """He told a funny story about a {animal} and everybody laughed.|My {family} likes riddles and jokes.|The clown made the children laugh.|It was so funny that she cried with laughter.|Nobody laughed at his joke.
A {animal} walks into a shop and asks for {food}.|Humour is different in every country.|The film was a comedy.|When I am {feeling}, my {family} makes me smile.|The {job} is always in a good mood.|He was bored, so he read a funny book.""",
    "people": """My {family} is a {job}.|The {job} lives in {city}.|Her {family} was born in {month}.|The {job} talked with the {job}.|I am {feeling} today.|Why are you so {feeling}?|His {family} has a {colour} {clothes}.
My {body} hurts, I must see a doctor.|They met in {city} on {day}.|Her {family} comes from {country}.|The children played with the {animal}.|The {job} wears a {colour} {clothes}.|He forgot the {thing} at home.""",
    "school": """The teacher wrote the homework on the board.|We have an exam on {day}.|She reads a book about {country}.|The lesson begins at {time}.|He learns to play {sport} after school.|The pupils asked many questions.
Our class has {n} pupils.|My {family} studies at a university in {city}.|I forgot my {thing} at school.|Learning {language} takes time.|The library is open until {time}.""",
    "sport": """We play {sport} on {day}.|Our team won the match in {city}.|My {family} is good at {sport}.|Doing {sport} keeps you healthy.|The game begins at {time}.|He ran {n} kilometres.|She hurt her {body} during {sport}.
They watched {sport} on television.|Many people in {country} love {sport}.""",
    "animals": """The {animal} sleeps under the {thing}.|A {animal} is bigger than a {animal}.|My {family} has a {colour} {animal}.|The {animal} eats {fruit}.|We saw a {animal} and a {animal} at the zoo.|The {animal} ran across the street.
Farmers keep animals such as the {animal}.|A {animal} can hear very well.""",
    "shop": """The shop sells {fruit}, {drink} and {clothes}.|I would like to buy a {thing}.|This {colour} {clothes} is too expensive.|Do you have it in {colour}?|The supermarket opens at {time}.|She paid by card.|He returned the {thing} because it was broken.
The price went up by {n} percent.|My {family} bought {n} kilos of {fruit}.|There is a sale on {day}.""",
    "city": """Go straight on and turn left at the bank.|The station is {n} minutes from here.|Take the {vehicle} to the museum.|There is a park behind the hotel.|The streets of {city} are crowded on {day}.|How far is it to {city}?
The {vehicle} stops in front of the library.|We took a {vehicle} because we were {feeling}.|There was a traffic jam near the bridge.|{city} is the largest city of the region.""",
}
SUBJECTS_ZH = {
    "天空": """{day}{city}下了一整天的雨。|{city}今天晴，气温{n}度左右。|预报说{day}会下雪。|带把伞吧，看样子要下雨了。|北风很大，气温降到了零度以下。|外面冷不冷？|下午起了云，后来刮起了大风。
{month}的{city}又热又潮湿。|雾太大了，看不清路。|天气很好，适合出去走走。|多穿一件{clothes}，外面很冷。|雨停以后空气很清新。|{country}的{month}热不热？|明天是阴天还是晴天？|台风快来了，大家都待在家里。""",
    "歌": """我{family}每天晚上弹{instrument}。|我们在收音机里听{music}。|她唱了一首歌，大家都鼓掌。|这个乐队在{city}开了演唱会。|声音小一点，谢谢。|比起{music}，我更喜欢{music}。
这张专辑有十首歌，第一首最好听。|他戴上耳机，开始听歌。|这位歌手的声音真好听。|这首歌的旋律我记了好久。|他们随着{music}跳舞。|{instrument}不容易学。|下一首歌很慢，有点伤感。""",
    "早上": """我每天早上{time}起床。|闹钟{time}响了，可我又睡着了。|{day}她起得很早。|他迟到了，因为钟停了。|提醒{family}{time}以前起床。|铃声{time}准时响起。|我还想再睡{n}分钟。|我{family}从来不睡懒觉。
早饭{time}就好了。|午睡以后，我们{time}才醒。|计时器过了{n}分钟就响了。|别叫醒我，我想多睡一会儿。""",
    "旅行": """从{city}到{city}的飞机{time}起飞。|他们买了两张去{country}的机票。|飞行时间是{n}个小时。|我们{day}从{city}飞回来。|我们的座位靠窗。|机场离{city}市中心很远。|我{family}每年{month}都去{country}旅行。
因为大雾，航班取消了。|他坐{vehicle}去，她坐{vehicle}去。|往返票比较便宜。|去{city}的旅客请到{n}号登机口。|她把{clothes}和护照装进了行李箱。|我们在{city}的一家小旅馆住了{n}晚。|去{city}的火车晚点了。""",
    "吃": """晚饭我们吃了{food}和{food}。|公司附近那家饭馆的{food}很好吃。|一杯{drink}，一份{food}，这就是我的午饭。|服务员拿来了菜单。|{day}我{family}做{food}。|我饿了，吃点东西吧。
外卖小哥送来的{food}还是热的。|你要{drink}还是{drink}？|这个{food}太咸了。|他们点了四个人的{food}。|她不吃肉。|{drink}里加点糖。|{month}的{fruit}最好吃。|厨师把{fruit}切成小块。|午饭{time}开始。|这家店送餐很快。""",
    "话": """她{family}会说{language}和{language}。|这个词是什么意思？|他在学校学{language}。|这本书是用{language}写的，后来翻译成了{language}。|我看不懂这句话。|字典解释词语的意思。
翻译把每句话都译成了{language}。|谢谢用{language}怎么说？|我的{language}不好，请说慢一点。|{thing}这个词的{language}很难念。|他们整个晚上都在说{language}。|牌子上写的是{language}，没有人看得懂。|她用{language}写信。""",
    "钱": """一百{money}不是小数目。|银行可以把{money}换成{money}。|{day}{money}的汇率跌了。|他花{n}{money}买了{thing}。|这合多少{money}？|{country}的物价涨了。|她每个月存{n}{money}。|今年{money}对{money}升值了。
我们身上只有{money}，没有{money}。|这件{clothes}要{n}{money}。|机场换钱要收手续费。|我{family}借给我{n}{money}。""",
    "家": """{room}的灯太亮了。|{room}里很暗。|谁忘了关{room}的灯？|他关了灯就睡觉了。|{thing}在{room}里。|她拉开{room}的窗帘，让阳光照进来。|{room}的灯泡坏了。|我们把{room}刷成了{colour}。|{thing}在{thing}旁边。
{room}里有一个{colour}的{thing}。|出门前请关好{room}的窗户。|开关在门边。|{day}我{family}打扫{room}。|新房子有{n}个房间。""",
    "邮件": """包裹{day}到了。|快递员把包裹放在门口。|我给{city}的{family}寄了一封信。|快递晚了，本来{day}就该到。|箱子从{city}发货，经过{city}。|运单号在收据上。|我们买了一个{thing}，{n}天以后才收到。
邮局{time}关门。|包裹在路上丢了。|请在这里签收。|她在网上买了一件{clothes}。|他在家等{thing}送来。|箱子上的地址写错了。|物流信息一直没有更新。""",
    "乐": """他讲了一个{animal}的故事，大家都笑了。|我{family}喜欢猜谜语，也喜欢听笑话。|小丑把孩子们逗笑了。|太好笑了，她笑出了眼泪。|他讲的笑话没有人笑。|一只{animal}走进商店，说要买{food}。|每个国家的幽默都不一样。
那部电影是喜剧。|我{feeling}的时候，{family}总能让我笑。|这位{job}心情总是很好。|他很无聊，就看了一本有趣的书。""",
    "人": """我{family}是{job}。|那位{job}住在{city}。|她{family}是{month}出生的。|{job}和{job}在说话。|我今天很{feeling}。|你为什么这么{feeling}？|他{family}有一件{colour}的{clothes}。|我{body}疼，得去看医生。
他们{day}在{city}见了面。|她{family}是{country}人。|孩子们和{animal}玩。|那位{job}穿着{colour}的{clothes}。|他把{thing}忘在家里了。""",
    "学校": """老师把作业写在黑板上。|{day}我们有考试。|她在看一本关于{country}的书。|{time}开始上课。|放学以后他去练{sport}。|学生们问了很多问题。|我们班有{n}个学生。|我{family}在{city}上大学。|我把{thing}忘在学校了。
学{language}需要时间。|图书馆开到{time}。""",
    "运动": """{day}我们去打{sport}。|我们队在{city}赢了比赛。|我{family}擅长{sport}。|{sport}对身体好。|比赛{time}开始。|他跑了{n}公里。|她练{sport}的时候伤了{body}。|他们在电视上看{sport}比赛。|{country}很多人喜欢{sport}。""",
    "动物": """{animal}睡在{thing}下面。|{animal}比{animal}大。|我{family}有一只{colour}的{animal}。|{animal}在吃{fruit}。|我们在动物园看见了{animal}和{animal}。|{animal}跑过了马路。|农民养{animal}。|{animal}的听力很好。""",
    "买": """这家店卖{fruit}、{drink}和{clothes}。|我想买一个{thing}。|这件{colour}的{clothes}太贵了。|有{colour}的吗？|超市{time}开门。|她刷卡付了钱。|{thing}坏了，他退了货。|价格涨了百分之{n}。|我{family}买了{n}斤{fruit}。|{day}打折。""",
    "城市": """一直走，到银行左转。|从这里到车站要{n}分钟。|坐{vehicle}去博物馆。|旅馆后面有一个公园。|{day}{city}的街上人很多。|到{city}有多远？|{vehicle}停在图书馆前面。|我们太{feeling}了，所以坐了{vehicle}。|桥附近堵车。|{city}是这个地区最大的城市。""",
}


def prose(rng: random.Random, documents: int) -> Iterator[tuple[str, str]]:
    """(language, document): runs of four to nine everyday sentences on one subject."""
    for _ in range(documents):
        lang = rng.choice(("en", "zh"))
        lines = rng.choice(list((SUBJECTS_EN if lang == "en" else SUBJECTS_ZH).values())).replace("\n", "|").split("|")
        chosen = rng.sample(lines, min(len(lines), rng.randint(4, 9)))
        yield lang, (" " if lang == "en" else "").join(_fill(line, lang, rng) for line in chosen)


def chats(
    rng: random.Random, count: int, glosses: list[tuple[str, str]]
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(language, turns): dialogues of one to three short exchanges."""
    kinds = [_repeat, _odd_one, _opposite, _word, _capital, _sum, _subject, _hello, _say_it]
    for _ in range(count):
        lang = rng.choice(("en", "zh"))
        turns = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if lang == "en" and glosses and rng.random() < 0.3:
                word, gloss = rng.choice(glosses)
                turns.append(
                    (
                        rng.choice(
                            ('What does "{}" mean?', "Explain the word {}.", "Define {}.", "what is the meaning of {}")
                        ).format(word),
                        gloss,
                    )
                )
            else:
                turns.append(rng.choice(kinds)(rng, lang))
        yield lang, turns


def _fill(line: str, lang: str, rng: random.Random) -> str:
    side = 0 if lang == "en" else 1
    while "{" in line:
        start, end = line.index("{"), line.index("}")
        kind = line[start + 1 : end]
        if kind == "n":
            value = str(rng.choice((2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 45, 50, 60, 80, 100, 200, 500)))
        elif kind == "time":
            hour, half = rng.randint(1, 12), rng.random() < 0.3
            value = (
                (f"{hour}:30" if half else f"{hour} o'clock") if lang == "en" else f"{hour}点" + ("半" if half else "")
            )
        else:
            value = rng.choice(PAIRS[kind])[side]
        line = line[:start] + value + line[end + 1 :]
    return line[0].upper() + line[1:] if lang == "en" else line


def _pair(rng: random.Random, kind: str | None = None) -> tuple[str, str]:
    return rng.choice(PAIRS[kind or rng.choice(list(PAIRS))])


def _side(lang: str, entry: str) -> str:
    return entry.rsplit(" ", 1)[0 if lang == "en" else 1]


def _repeat(rng, lang):
    words = (
        " ".join(_pair(rng)[0] for _ in range(rng.randint(1, 3)))
        if lang == "en"
        else "、".join(_pair(rng)[1] for _ in range(rng.randint(1, 3)))
    )
    ask = (
        ("Repeat: {}", "Say this again: {}", "Please repeat the words {}")
        if lang == "en"
        else ("重复：{}", "请再说一遍：{}", "跟我念：{}")
    )
    return rng.choice(ask).format(words), words


KIND_NAMES = {
    "fruit": ("a fruit", "水果"),
    "animal": ("an animal", "动物"),
    "colour": ("a colour", "颜色"),
    "city": ("a city", "城市"),
    "country": ("a country", "国家"),
    "clothes": ("something to wear", "衣服"),
    "job": ("a job", "职业"),
    "drink": ("a drink", "饮料"),
    "vehicle": ("a vehicle", "交通工具"),
    "instrument": ("an instrument", "乐器"),
    "room": ("a room", "房间"),
    "sport": ("a sport", "运动"),
    "body": ("a part of the body", "身体部位"),
    "language": ("a language", "语言"),
    "month": ("a month", "月份"),
}


def _odd_one(rng, lang):
    kind, *others = rng.sample(list(KIND_NAMES), 3)
    side = 0 if lang == "en" else 1
    right = _pair(rng, kind)[side]
    options = [right, *(_pair(rng, other)[side] for other in others)]
    rng.shuffle(options)
    if lang == "en":
        return f"Which of these is {KIND_NAMES[kind][0]}: {', '.join(options)}?", right
    return f"下面哪个是{KIND_NAMES[kind][1]}：{'、'.join(options)}？", right


def _subject(rng, lang):
    """What a word is: the nearest thing to sorting that the model meets."""
    kind = rng.choice(list(KIND_NAMES))
    side = 0 if lang == "en" else 1
    word = _pair(rng, kind)[side]
    if lang == "en":
        return rng.choice(("What is {}?", "what kind of thing is {}")).format(word), f"It is {KIND_NAMES[kind][0]}."
    return f"{word}是什么？", f"{word}是{KIND_NAMES[kind][1]}。"


def _opposite(rng, lang):
    one, two = rng.choice(OPPOSITES)
    if rng.random() < 0.5:
        one, two = two, one
    ask = (
        ("What is the opposite of {}?", "opposite of {}")
        if lang == "en"
        else ("{}的反义词是什么？", "“{}”的相反是什么？")
    )
    return rng.choice(ask).format(_side(lang, one)), _side(lang, two)


def _word(rng, lang):
    english, chinese = _pair(rng)
    if lang == "en":
        return rng.choice(("What is {} in Chinese?", "The Chinese word for {}?")).format(english), chinese
    return rng.choice(("{}的英文是什么？", "英文里{}是哪个词？")).format(chinese), english


def _say_it(rng, lang):
    """The other way round, asked in the other language."""
    english, chinese = _pair(rng)
    return (f"What does {chinese} mean?", english) if lang == "en" else (f"{english} 是什么意思？", chinese)


def _capital(rng, lang):
    country, city = rng.choice(CAPITALS)
    if lang == "en":
        return f"What is the capital of {_side(lang, country)}?", f"{_side(lang, city)}."
    return f"{_side(lang, country)}的首都是哪里？", f"{_side(lang, city)}。"


def _sum(rng, lang):
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    return (f"How much is {a} + {b}?" if lang == "en" else f"{a}加{b}等于几？"), str(a + b)


HELLO = {
    "en": [
        ("Hello!", "Hello! How can I help you?"),
        ("Hi", "Hi! What can I do for you?"),
        ("Good morning", "Good morning! How can I help you?"),
        ("Thank you!", "You are welcome."),
        ("thanks a lot", "You are welcome."),
        ("Who are you?", "I am a very small language model, made to try out training."),
        ("How are you?", "I am fine, thank you."),
        ("Goodbye", "Goodbye!"),
        ("Are you a person?", "No, I am a small language model."),
        ("What can you do?", "Very little so far. Train me and I shall learn more."),
    ],
    "zh": [
        ("你好", "你好！有什么可以帮你？"),
        ("您好！", "您好！请问需要什么？"),
        ("早上好", "早上好！有什么可以帮你？"),
        ("谢谢", "不客气。"),
        ("多谢你了", "不客气。"),
        ("你是谁？", "我是一个很小的语言模型，用来试验训练。"),
        ("你好吗？", "我很好，谢谢。"),
        ("再见", "再见！"),
        ("你是人吗？", "不是，我是一个小语言模型。"),
        ("你会做什么？", "现在会的还很少，训练以后会多一些。"),
    ],
}


def _hello(rng, lang):
    return rng.choice(HELLO[lang])
