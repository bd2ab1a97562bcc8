/* The words of the page in two languages: `name: [pt, en]`. */

const LANGUAGES = ["pt-BR", "en"];

const WORDS = {
  title: ["SPIRA · Coleta", "SPIRA · Collection"],
  home: ["Início", "Home"],
  language: ["English", "Português"],
  language_code: ["en", "pt-BR"],
  unsent_0: ["Tudo enviado", "All sent"],
  unsent_1: ["1 por enviar", "1 unsent"],
  unsent_n: ["{n} por enviar", "{n} unsent"],
  back: ["Voltar", "Back"],
  next: ["Continuar", "Continue"],
  cancel: ["Cancelar", "Cancel"],
  leave: ["Guardar e sair", "Save and leave"],
  step: ["Passo {n} de {all}", "Step {n} of {all}"],
  yes: ["Sim", "Yes"],
  no: ["Não", "No"],
  optional: ["opcional", "optional"],

  // enrolment
  enrol: ["Ligar este telefone", "Enrol this phone"],
  enrol_why: [
    "Digite o código de uso único que a coordenação da coleta entregou. É preciso ter rede só agora.",
    "Type the one-time code that the coordination of the collection gave you. Only now is a network needed.",
  ],
  code: ["Código", "Code"],
  code_form: ["12 letras e algarismos, em grupos de quatro", "12 letters and digits, in groups of four"],
  enrol_now: ["Ligar telefone", "Enrol phone"],
  enrol_other: ["Usar outro código neste telefone", "Use another code on this phone"],
  enrolling: ["Ligando…", "Enrolling…"],
  enrolled_already: [
    "Este telefone já está ligado a {site}. Um código novo troca essa ligação; o que ainda não foi enviado fica guardado.",
    "This phone is enrolled at {site} already. A new code replaces that; what is unsent stays on the phone.",
  ],
  bad_code: [
    "O código não vale: foi usado, venceu ou tem um erro de digitação. Confira ou peça outro.",
    "The code is not valid: it was used, has expired or is mistyped. Check it or ask for another.",
  ],
  bad_code_form: ["O código tem 12 letras e algarismos.", "The code has 12 letters and digits."],
  no_network: ["Sem rede agora. O telefone tenta de novo sozinho.", "No network now. The phone tries again by itself."],
  enrol_no_network: ["Sem rede. Para ligar o telefone é preciso rede.", "No network. Enrolling needs a network."],
  server: ["O servidor não respondeu como devia. O telefone tenta de novo sozinho.", "The server did not answer as it should. The phone tries again by itself."],
  enrol_server: ["O servidor não respondeu como devia. Tente de novo em alguns minutos.", "The server did not answer as it should. Try again in a few minutes."],
  too_much_today: [
    "Este telefone já enviou tudo o que pode em 24 horas. Nada se perde; ele envia o resto mais tarde.",
    "This phone has sent as much as it may in 24 hours. Nothing is lost; it sends the rest later.",
  ],
  disk_full: ["O servidor está sem espaço. Nada se perde; avise a coordenação.", "The server is out of space. Nothing is lost; tell the coordination."],
  again: ["Uma parte não chegou. O telefone envia de novo.", "A part did not arrive. The phone sends it again."],
  failed: ["O envio parou. O telefone tenta de novo sozinho.", "Sending stopped. The phone tries again by itself."],
  enrol_again: [
    "O servidor não reconhece mais este telefone. Peça um código novo; as gravações continuam guardadas aqui.",
    "The server does not know this phone any more. Ask for a new code; the recordings stay here.",
  ],

  // installation
  install: ["Instalar na tela inicial", "Install on the home screen"],
  install_why: [
    "Instalado, o aplicativo abre sem rede e o telefone não apaga o que ainda não foi enviado.",
    "Once installed, the app opens without a network and the phone does not delete what is unsent.",
  ],
  install_ios: [
    "O Safari apaga o que uma página guardou se ela passa 7 dias sem ser aberta. Na tela inicial, não. Toque em Compartilhar e depois em “Adicionar à Tela de Início”.",
    "Safari deletes what a page has kept when it is not opened for 7 days. On the home screen it does not. Tap Share, then “Add to Home Screen”.",
  ],
  install_ios_first: [
    "Faça isso antes de digitar o código: o aplicativo instalado não vê o que foi digitado no Safari.",
    "Do this before you type the code: the installed app does not see what was typed in Safari.",
  ],
  install_menu: [
    "Abra o menu do navegador e escolha “Instalar” ou “Adicionar à tela inicial”.",
    "Open the browser's menu and choose “Install” or “Add to home screen”.",
  ],

  // list
  sessions: ["Sessões", "Sessions"],
  start: ["Nova sessão", "New session"],
  send_now: ["Enviar agora", "Send now"],
  sending: ["Enviando… {share} %", "Sending… {share}%"],
  all_stored: ["Nada por enviar neste telefone.", "Nothing unsent on this phone."],
  will_send: ["Envia sozinho quando houver rede.", "Sends by itself when there is a network."],
  offline: ["Sem rede.", "No network."],
  to_finish: ["A terminar", "To finish"],
  to_mend: ["Recusadas: corrigir", "Refused: to mend"],
  on_phone: ["Neste telefone, por enviar", "On this phone, to be sent"],
  stored: ["Guardadas no servidor", "Stored on the server"],
  elsewhere: ["Esta sessão é de {site}. Ligue o telefone lá para enviá-la.", "This session belongs to {site}. Enrol the phone there to send it."],
  none_yet: ["Nenhuma sessão ainda.", "No session yet."],
  session_name: ["Sessão {name}", "Session {name}"],
  state_draft: ["em andamento", "in progress"],
  state_waiting: ["no telefone", "on the phone"],
  state_uploading: ["enviando", "uploading"],
  state_accepted: ["guardada", "stored"],
  state_refused: ["recusada", "refused"],
  state_consenting: ["consentimento dado, a avisar", "consent given, to be told"],
  state_withdrawing: ["retirada, a avisar", "withdrawn, to be told"],
  state_withdrawn: ["retirada", "withdrawn"],
  resume: ["Continuar", "Continue"],
  mend: ["Corrigir", "Mend"],
  show_all: ["Mostrar todas ({n})", "Show all ({n})"],
  receipt: ["Recibo", "Receipt"],
  received_at: ["Recebida pelo servidor {at}", "Received by the server {at}"],
  delete: ["Apagar", "Delete"],
  delete_title: ["Apagar esta sessão?", "Delete this session?"],
  delete_text: [
    "As gravações e o formulário só existem neste telefone. Apagados, não voltam.",
    "The recordings and the form exist on this phone only. They cannot be brought back.",
  ],
  consent_came: ["Consentimento dado", "Consent was given"],
  consent_came_title: ["A pessoa deu o consentimento?", "Has the person given consent?"],
  consent_came_text: [
    "A pessoa, ou quem responde por ela, concordou com o texto que foi mostrado. O servidor passa a usar a sessão.",
    "The person, or whoever answers for them, agreed to the text that was shown. The server uses the session from now on.",
  ],
  consent_came_yes: ["Sim, concordou", "Yes, agreed"],
  withdraw: ["Retirar consentimento", "Withdraw consent"],
  withdraw_title: ["A pessoa retirou o consentimento?", "Has the person withdrawn consent?"],
  withdraw_text: [
    "As gravações desta sessão são apagadas do telefone agora, e o servidor deixa de usá-las. Não há volta.",
    "The recordings of this session are deleted from the phone now, and the server stops using them. This cannot be undone.",
  ],
  withdraw_yes: ["Sim, retirou", "Yes, withdrawn"],
  other_window: ["Esta sessão está aberta em outra janela.", "This session is open in another window."],
  closed: ["Esta sessão já foi concluída.", "This session is finished."],
  no_store: [
    "O navegador não deixa guardar nada neste telefone. Saia do modo privado ou use outro navegador.",
    "The browser keeps nothing on this phone. Leave private browsing, or use another browser.",
  ],
  not_here: ["Esta sessão não está neste telefone.", "This session is not on this phone."],
  new_version: ["Há uma versão nova.", "There is a new version."],
  update: ["Atualizar", "Update"],
  no_form: [
    "O formulário ainda não chegou. Abra o aplicativo uma vez com rede.",
    "The form has not arrived yet. Open the app once with a network.",
  ],
  about: ["Este telefone", "This phone"],
  about_site: ["Local", "Site"],
  about_version: ["Versão", "Version"],
  about_kept: ["Memória protegida", "Protected storage"],
  kept_yes: ["sim", "yes"],
  kept_no: ["não: instale na tela inicial", "no: install on the home screen"],
  little_room: [
    "Pouco espaço neste telefone: envie o que falta antes de gravar mais.",
    "Little room on this phone: send what is unsent before you record more.",
  ],
  error_audio_lost: ["O navegador apagou as gravações desta sessão. Grave de novo.", "The browser deleted the recordings of this session. Record again."],
  error_conflict: ["O servidor já tem outra versão desta sessão. Avise a coordenação.", "The server has another version of this session already. Tell the coordination."],
  error_withdrawal_unknown: [
    "O servidor ainda não sabe da retirada: este telefone foi ligado para outra pessoa. Peça à coordenação um código para quem gravou, ou que ela apague.",
    "The server does not know of the withdrawal yet: this phone was enrolled for somebody else. Ask the coordination for a code for who recorded, or to erase it.",
  ],
  error_other: ["O servidor não aceitou o envio ({code}). Avise a coordenação.", "The server did not take it ({code}). Tell the coordination."],

  // asking a model
  start_why: ["gravar e guardar, para pesquisa", "record and keep, for research"],
  ask: ["Perguntar ao modelo", "Ask the model"],
  ask_why: ["uma frase, uma resposta", "one sentence, one answer"],
  answers: ["Respostas", "Answers"],
  answers_n: ["Respostas ({n})", "Answers ({n})"],
  answers_why: [
    "O que este telefone perguntou nos últimos 7 dias. As respostas ficam no servidor; sem rede não aparecem.",
    "What this phone asked in the last 7 days. The answers stay on the server; without a network they are not shown.",
  ],
  no_answers: ["Nenhuma pergunta ainda.", "Nothing was asked yet."],
  look: ["Ver", "Look"],
  send: ["Enviar ao modelo", "Send to the model"],
  send_how: ["A gravação tem {n} s e passou na conferência do telefone.", "The recording has {n} s and passed the checks of the phone."],
  send_ask: ["Enviar", "Send"],
  number: ["Registro hospitalar", "Hospital number"],
  number_why: [
    "Só se a resposta vai ser comparada mais tarde com o diagnóstico. O servidor guarda um pseudônimo no lugar dele.",
    "Only if the answer is to be compared with the diagnosis later. The server keeps a pseudonym in its place.",
  ],
  agrees: ["A pessoa concorda?", "Does the person agree?"],
  agrees_why: ["Sem nenhuma das duas, a resposta vem do mesmo jeito.", "Without either of them the answer comes all the same."],
  agrees_text: ["Texto do consentimento", "Text of the consent"],
  agrees_labels: [
    "A gravação pode ser usada para ensinar e testar o modelo (texto na versão {version})",
    "The recording may be used to teach and to test the model (version {version} of the text)",
  ],
  agrees_ab: [
    "A resposta pode vir de qualquer um de dois modelos, num estudo que os compara",
    "The answer may come from either of two models, in a study that compares them",
  ],
  answer: ["Resposta", "Answer"],
  ask_state_draft: ["a terminar", "to finish"],
  ask_state_waiting: ["No telefone, por enviar", "On this phone, to be sent"],
  ask_state_sending: ["Enviando…", "Sending…"],
  ask_state_asked: ["Enviada", "Sent"],
  ask_state_queued: ["Esperando a resposta", "Waiting for the answer"],
  ask_state_answered: ["Respondida", "Answered"],
  ask_state_again: ["Gravar de novo", "Record again"],
  ask_state_failed: ["Sem resposta", "No answer"],
  ask_state_deleted: ["Apagada", "Deleted"],
  ask_state_deleting: ["A apagar no servidor", "To be deleted on the server"],
  ask_waits: ["O servidor guardou a gravação. A resposta costuma vir em segundos.", "The server has stored the recording. The answer usually comes within seconds."],
  ask_error_malformed: ["O servidor não aceitou o registro hospitalar. Confira-o, ou deixe em branco.", "The server did not take the hospital number. Check it, or leave it empty."],
  ask_error_clock: [
    "O relógio deste telefone está adiantado. Acerte a data e a hora, apague aqui e grave de novo.",
    "The clock of this phone is ahead. Set date and time, delete this here and record again.",
  ],
  ask_error_erased: [
    "Esta pessoa pediu que tudo dela fosse apagado. O servidor não guarda nada; apague aqui também.",
    "This person had everything erased. The server keeps nothing; delete it here, too.",
  ],
  ask_error_audio_lost: ["O navegador apagou a gravação. Apague e grave de novo.", "The browser deleted the recording. Delete this and record again."],
  ask_error_not_there: [
    "Ainda não foi apagada no servidor: este telefone foi ligado para outra pessoa. Peça à coordenação um código para quem perguntou.",
    "It is not deleted on the server yet: this phone was enrolled for somebody else. Ask the coordination for a code for who asked.",
  ],
  ask_error_other: ["O servidor não aceitou o envio. Avise a coordenação.", "The server did not take it. Tell the coordination."],
  answer_offline: ["Sem rede agora: a resposta aparece quando houver.", "No network now: the answer is shown when there is one."],
  answer_server: ["O servidor não respondeu como devia. O telefone tenta de novo sozinho.", "The server did not answer as it should. The phone tries again by itself."],
  answer_gone: [
    "O servidor não mostra esta resposta a este telefone: ele foi ligado de novo depois da pergunta.",
    "The server does not show this answer to this phone: it was enrolled anew after it had asked.",
  ],
  head_positive: ["O modelo ouviu sinais", "The model heard signs"],
  head_negative: ["O modelo não ouviu sinais", "The model heard no signs"],
  head_inconclusive: ["O modelo não sabe dizer", "The model cannot tell"],
  head_again: ["Grave de novo", "Record again"],
  means_positive: [
    "Esta voz parece com as vozes de pessoas com insuficiência respiratória. Meça a saturação e avise quem cuida da pessoa.",
    "This voice is like those of people with respiratory insufficiency. Measure the saturation, and tell whoever cares for the person.",
  ],
  means_negative: [
    "Esta voz parece com as vozes de pessoas sem insuficiência respiratória. Isso não exclui a doença.",
    "This voice is like those of people without respiratory insufficiency. That does not exclude the illness.",
  ],
  means_inconclusive: [
    "O resultado ficou perto do ponto em que o modelo mais erra, e ele não decide. Não quer dizer “nem doente nem saudável”. Pode ajudar gravar mais uma vez, num lugar mais calmo.",
    "The result is near the point where the model errs most, and it does not decide. It does not mean “neither ill nor well”. Another recording in a quieter place may help.",
  ],
  again_means: [
    "O modelo não responde sobre esta gravação, porque a resposta não valeria. Não diz nada sobre a pessoa.",
    "The model does not answer on this recording, because the answer would not hold. It says nothing about the person.",
  ],
  not_a_diagnosis: [
    "Isto não é um diagnóstico. Quem decide é a equipe que vê a pessoa.",
    "This is not a diagnosis. Those who see the person decide.",
  ],
  synthetic_cohort: [
    "Este modelo aprendeu com vozes feitas por computador. Serve para experimentar o sistema, e para nada mais.",
    "This model learned from voices that a computer made. It serves to try the system, and for nothing else.",
  ],
  probability: ["Probabilidade dada pelo modelo: {p}. Decide por “sinais” a partir de {point}.", "Probability given by the model: {p}. It decides for “signs” from {point} on."],
  about_answer: ["Limites e versão", "Limits and version"],
  limits_1: [
    "O modelo ouve só a voz nesta gravação. Não conhece a saturação, o exame nem a história da pessoa, e erra para os dois lados.",
    "The model hears the voice of this recording alone. It knows neither the saturation nor the examination nor the history of the person, and it errs both ways.",
  ],
  limits_2: [
    "Vale para a frase da tela, lida em português, e para vozes como as com que ele aprendeu.",
    "It holds for the sentence on the screen, read in Portuguese, and for voices like those that it learned from.",
  ],
  about_model: ["Versão do modelo", "Version of the model"],
  about_digest: ["Impressão digital", "Digest"],
  about_answered: ["Respondida", "Answered"],
  about_windows: ["Trechos", "Windows"],
  windows: ["{n} de 4 s: de {low} a {high}", "{n} of 4 s: {low} to {high}"],
  unusual: ["Fora do comum nesta gravação", "Unusual in this recording"],
  feedback: ["Combina com o que você vê?", "Does it go with what you see?"],
  agreed: ["Combina", "It does"],
  disagreed: ["Não combina", "It does not"],
  feedback_taken: ["Anotado. A resposta não muda.", "Noted. The answer does not change."],
  no_network_now: ["Sem rede agora. Tente mais tarde.", "No network now. Try later."],
  ask_again: ["Gravar mais uma vez", "Record once more"],
  ended_failed: ["O modelo não conseguiu responder. Não diz nada sobre a pessoa. Grave de novo; se acontecer outra vez, avise a coordenação.", "The model could not answer. It says nothing about the person. Record again; if it happens once more, tell the coordination."],
  ended_deleted: ["A gravação foi apagada no servidor.", "The recording was deleted on the server."],
  delete_ask_title: ["Apagar?", "Delete this?"],
  delete_ask_text: ["A gravação só existe neste telefone. Apagada, não volta.", "The recording exists on this phone only. It cannot be brought back."],
  delete_answer_text: ["A gravação e a resposta são apagadas do telefone e do servidor.", "The recording and the answer are deleted from the phone and the server."],
  sound_level_dbfs_low: ["A voz está baixa: aproxime o telefone da boca, a um palmo.", "The voice is quiet: hold the phone a hand's width from the mouth."],
  sound_level_dbfs_high: ["A voz está alta: afaste um pouco o telefone.", "The voice is loud: hold the phone a little farther away."],
  sound_clipping_fraction_high: ["O som estourou: afaste o telefone cerca de um palmo.", "The sound is clipped: hold the phone a hand's width farther away."],
  sound_dc_offset_low: ["O microfone parece ter defeito: tire o fone ou use outro telefone.", "The microphone seems defective: unplug headphones or use another phone."],
  sound_dc_offset_high: ["O microfone parece ter defeito: tire o fone ou use outro telefone.", "The microphone seems defective: unplug headphones or use another phone."],
  sound_snr_db_low: ["Há barulho demais em volta: feche a porta, desligue o que faz barulho.", "There is too much noise around: close the door, switch off what makes noise."],
  sound_bandwidth_hz_low: ["Faltam os sons agudos: não grave por ligação nem por fone sem fio.", "High tones are missing: do not record over a call or a wireless headset."],
  sound_speech_fraction_low: ["Quase não há fala: comece a gravar quando a pessoa começa a ler.", "There is hardly any speech: start when the person starts to read."],
  sound_speech_fraction_high: ["Quase não há pausas na fala.", "There are hardly any pauses in the speech."],
  sound_longest_digital_silence_seconds_high: ["Faltam pedaços do som: feche outros aplicativos.", "Pieces of the sound are missing: close other apps."],
  sound_dropouts_per_second_high: ["O som tem falhas: feche outros aplicativos.", "The sound has gaps: close other apps."],
  sound_duration_seconds_low: ["Curta demais: espere a pessoa ler a frase toda.", "Too short: wait until the person has read the whole sentence."],
  sound_duration_seconds_high: ["Longa demais: pare quando a frase terminar.", "Too long: stop when the sentence ends."],
  sound_too_long: ["Longa demais: pare quando a frase terminar.", "Too long: stop when the sentence ends."],
  sound_constant: ["O microfone não deu som nenhum: tire o fone e veja se outro aplicativo o usa.", "The microphone gave no sound at all: unplug headphones and see whether another app uses it."],
  sound_empty: ["A gravação está vazia.", "The recording is empty."],
  sound_truncated: ["A gravação chegou incompleta.", "The recording is incomplete."],
  sound_other: ["Algo nesta gravação está fora do que o modelo aceita.", "Something in this recording is beyond what the model takes."],

  // consent
  consent: ["Consentimento", "Consent"],
  consent_how: ["Leia com a pessoa, com calma.", "Read it with the person, without haste."],
  consent_version: ["Versão {version}, para: {scopes}", "Version {version}, for: {scopes}"],
  consent_scope: ["Para que a pessoa dá o consentimento?", "What does the person consent to?"],
  consent_answer: ["O que a pessoa decidiu?", "What has the person decided?"],
  consent_granted: ["Concorda", "Agrees"],
  consent_pending: ["Vai decidir depois", "Will decide later"],
  consent_pending_why: ["a sessão fica à parte e não é usada até lá", "the session is kept apart and is not used until then"],
  consent_refused: ["Não concorda", "Does not agree"],
  consent_refused_title: ["A pessoa não concorda", "The person does not agree"],
  consent_refused_text: ["Esta sessão, com tudo o que foi gravado nela, é apagada.", "This session, with all that was recorded in it, is deleted."],
  consent_refused_yes: ["Apagar sessão", "Delete session"],
  consent_missing: ["Escolha o que a pessoa decidiu.", "Choose what the person has decided."],
  scope_missing: ["Escolha para que serve o consentimento.", "Choose what the consent is for."],
  scope_research: ["pesquisa", "research"],
  scope_training: ["pesquisa e treinamento de modelos", "research and training of models"],
  scope_public: ["pesquisa e publicação das gravações", "research and publication of the recordings"],

  // tasks
  prompt_says: ["A pessoa diz", "The person says"],
  record: ["Gravar", "Record"],
  stop: ["Parar", "Stop"],
  record_again: ["Gravar de novo", "Record again"],
  opening: ["Abrindo o microfone…", "Opening the microphone…"],
  recording: ["Gravando", "Recording"],
  checking: ["Conferindo…", "Checking…"],
  listen: ["Ouvir", "Listen"],
  stop_listening: ["Parar", "Stop"],
  keep: ["Ficar com esta", "Keep this one"],
  kept: ["Mantida assim mesmo.", "Kept all the same."],
  skip: ["A pessoa não consegue: pular", "The person cannot: skip"],
  skipped: ["Pulada.", "Skipped."],
  take_good: ["Boa gravação", "Good recording"],
  take_care: ["Dá para melhorar", "Could be better"],
  take_bad: ["É preciso gravar de novo", "It has to be recorded again"],
  seconds: ["{n} s", "{n} s"],
  at_least: ["no mínimo {n} s", "at least {n} s"],
  between_seconds: ["de {min} a {max} s", "{min} to {max} s"],
  level_quiet: ["Mais perto", "Closer"],
  level_good: ["Bom", "Good"],
  level_loud: ["Alto demais", "Too loud"],
  level_ambient: ["Ouvindo a sala", "Listening to the room"],
  find_dead_input: [
    "O microfone não deu som nenhum. Tire o fone, confira se outro aplicativo usa o microfone, e grave de novo.",
    "The microphone gave no sound at all. Unplug headphones, see whether another app uses the microphone, and record again.",
  ],
  find_interrupted: [
    "A gravação foi interrompida (uma ligação, ou outra janela). Deixe esta tela aberta e grave de novo.",
    "The recording was interrupted (a call, or another window). Keep this screen open and record again.",
  ],
  find_too_short: ["Curta demais: são precisos {min} s. Espere a pessoa terminar antes de parar.", "Too short: {min} s are needed. Wait until the person has finished."],
  find_clipped: ["O som estourou. Afaste o telefone cerca de um palmo e grave de novo.", "The sound is clipped. Hold the phone a hand's width farther away and record again."],
  find_clipped_a_little: ["O som estourou um pouco. Se der, afaste o telefone e grave de novo.", "The sound is clipped a little. If you can, hold the phone farther away and record again."],
  find_too_quiet: ["Baixa demais. Aproxime o telefone da boca, a um palmo, e grave de novo.", "Too quiet. Hold the phone a hand's width from the mouth and record again."],
  find_quiet: ["Está baixa. Se der, aproxime o telefone e grave de novo.", "It is quiet. If you can, hold the phone closer and record again."],
  find_defective_input: ["O microfone parece ter defeito. Tire o fone ou use outro telefone.", "The microphone seems defective. Unplug headphones or use another phone."],
  find_gaps: ["Faltam pedaços do som. Feche outros aplicativos e grave de novo.", "Pieces of the sound are missing. Close other apps and record again."],
  mic_denied: [
    "O navegador não pode usar o microfone. Permita o microfone para esta página nas configurações e tente de novo.",
    "The browser may not use the microphone. Allow it for this page in the settings and try again.",
  ],
  mic_none: ["Este aparelho não tem microfone que se possa usar agora.", "This device has no microphone that can be used now."],
  mic_processing: [
    "Este navegador não desliga todo o tratamento de som. Isso é anotado com a gravação.",
    "This browser does not switch off all processing of sound. This is noted with the recording.",
  ],
  not_saved: ["Não foi possível guardar: o telefone está sem espaço?", "It could not be saved: is the phone out of space?"],

  // form
  form: ["Formulário", "Form"],
  group_person: ["Pessoa", "Person"],
  group_vitals: ["Sinais vitais", "Vital signs"],
  group_clinic: ["Clínica", "Clinic"],
  form_saved: ["Tudo o que você digita fica guardado no telefone.", "Whatever you type is kept on the phone."],
  from_to: ["de {low} a {high}", "{low} to {high}"],
  from_only: ["a partir de {low}", "from {low}"],
  to_only: ["até {high}", "up to {high}"],
  choose: ["Escolha", "Choose"],
  not_filled: ["sem resposta", "no answer"],
  wrong_n: ["{n} campos por corrigir", "{n} fields to mend"],
  wrong_1: ["1 campo por corrigir", "1 field to mend"],
  no_names: ["sem nome, telefone ou documento da pessoa", "no name, telephone or document of the person"],
  rule_required: ["Preencha este campo.", "Fill in this field."],
  rule_values: ["Escolha uma das respostas.", "Choose one of the answers."],
  rule_format: ["Não é um valor deste campo.", "This is no value of this field."],
  rule_format_like: ["Não é um valor deste campo. Um exemplo: {like}.", "This is no value of this field. An example: {like}."],
  rule_format_whole: ["Escreva um número inteiro.", "Write a whole number."],
  rule_format_number: ["Escreva um número.", "Write a number."],
  rule_range: ["Está fora do possível: {range}.", "It is outside of what is possible: {range}."],
  rule_future: ["Está no futuro. Confira o relógio do telefone.", "It is in the future. Check the clock of the phone."],
  rule_personal_data: ["Parece conter nome, telefone ou documento. Retire-o.", "It seems to hold a name, telephone or document. Take it out."],
  rule_unknown_field: ["O servidor não conhece este campo.", "The server does not know this field."],
  rule_check_digit: ["A letra do fim não combina com os algarismos.", "The last letter does not go with the digits."],
  rule_record_again: ["É preciso gravar de novo.", "It has to be recorded again."],
  rule_other: ["O servidor não aceitou este valor.", "The server did not take this value."],
  letter_title: ["Confira o número", "Check the number"],
  letter_text: [
    "A letra do fim não combina com os algarismos: um deles pode estar trocado. Compare com a pulseira ou o prontuário.",
    "The last letter does not go with the digits: one of them may be wrong. Compare it with the wristband or the record.",
  ],
  letter_yes: ["Está certo assim", "It is right as it is"],
  letter_no: ["Corrigir", "Mend"],

  now: ["Agora", "Now"],
  unit_years: ["anos", "years"],
  "unit_/min": ["por minuto", "per minute"],
  why_too_short: ["curta demais; grave de novo.", "too short; record it again."],
  why_clipped: ["o som estourou; afaste o telefone e grave de novo.", "clipped; hold the phone farther away and record it again."],
  why_duplicate_audio: ["é a mesma gravação de outra tarefa ou sessão; grave de novo.", "the same recording as of another task or session; record it again."],

  // review
  review: ["Conferir", "Review"],
  review_how: ["Confira com a pessoa ainda por perto.", "Check while the person is still there."],
  finish: ["Concluir", "Finish"],
  finish_again: ["Concluir e enviar de novo", "Finish and send again"],
  missing_task: ["falta gravar", "not recorded yet"],
  task_bad: ["gravar de novo", "record again"],
  fields_filled: ["{n} de {all} campos", "{n} of {all} fields"],
  change: ["Alterar", "Change"],
  not_ready: ["Ainda falta: {what}.", "Still missing: {what}."],
  finished: ["Sessão guardada neste telefone.", "Session kept on this phone."],
};

let language = navigator.language.startsWith("en") ? "en" : "pt-BR";

export const languageNow = () => language;

export function setLanguage(code) {
  language = LANGUAGES.includes(code) ? code : LANGUAGES[0];
  document.documentElement.lang = language;
  document.title = t("title");
}

/** A word or sentence with its values in place. */
export function t(name, values = {}) {
  const words = WORDS[name];
  if (words === undefined) throw new Error(`no words for ${name}`);
  return words[LANGUAGES.indexOf(language)].replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

export const has = (name) => Object.hasOwn(WORDS, name);

/** Of `{pt, en}`, what the server sends in two languages. */
export const both = (texts) => (texts ? (texts[language.slice(0, 2)] ?? texts.pt ?? texts.en ?? "") : "");

/** A number as it is written in this language. */
export const number = (value) => new Intl.NumberFormat(language).format(value);

/** The allowed range of a field in words, empty where there is none. */
export const unitInWords = (unit) => (has(`unit_${unit}`) ? t(`unit_${unit}`) : unit);

export function rangeInWords({ low = null, high = null, unit = "" }) {
  const words =
    low !== null && high !== null
      ? t("from_to", { low: number(low), high: number(high) })
      : low !== null
        ? t("from_only", { low: number(low) })
        : high !== null
          ? t("to_only", { high: number(high) })
          : "";
  return words && unit ? `${words} ${unitInWords(unit)}` : words;
}
