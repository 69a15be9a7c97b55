// Who plays what: the channel events of a song sorted into parts, as pretty_midi sorts them into instruments.
//
// A part is a track, a channel and the program in force where its notes *end*; it begins to exist with the first note
// that ends in it. Controls and bends go to the part of the program in force; until that exists they wait, and a part
// made while some wait on its channel shares their list from then on, before and after, with every other such part.
// A note-off ends all the notes of its channel and pitch that began before its tick; where none did, it takes away
// those that began at its tick; notes without an end are not there.
//
// Source: pretty_midi 0.2.11, PrettyMIDI._load_instruments.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "midi/smf.h"
#include "midi/song.h"

namespace musicgen::midi {

class Ensemble final : public Listener {
 public:
  struct Note {
    std::int64_t start, end;  // ticks; end -1: never ended
    std::int64_t link;        // index of its part; while it sounds, the next younger note of its key, or -1
    std::uint8_t pitch, velocity;
  };
  struct Event {
    std::int64_t time;  // ticks
    std::int32_t value;
  };
  struct Events {
    std::vector<Event> pedals, bends;  // in file order
    std::int64_t last = 0;             // ticks, of any control or bend
  };
  struct Part {
    std::int32_t track;
    std::uint8_t channel;
    std::size_t events;  // index into `events`
    std::int64_t last;   // tick of the last note's end
  };

  // Channel events track by track, in the order of the file.
  void channel_event(std::int32_t track, std::int64_t time, std::uint8_t status, std::uint8_t data1,
                     std::uint8_t data2) override;

  // All channel events of a song, in the order in which `write` would put them. `as_written`: with its own notes,
  // instead of what their note-ons and note-offs mean by the rule above.
  void play(const SongView& song, bool as_written, Poll poll);

  Buffer<Note> notes;
  std::vector<Part> parts;
  std::vector<Events> events;

 private:
  static constexpr std::int32_t none = -1;
  static constexpr int num_keys = 16 * 128;  // channel and pitch

  struct Span {  // of one track
    const midi::Note *notes, *notes_end;
    const midi::Event *events, *events_end;
  };

  void begin_track(std::int32_t track);
  void play_in_order(const Span& span, Poll poll);
  void play_apart(const Span& span, Poll poll);
  void note_on(int key, std::uint8_t velocity, std::int64_t time);
  void note_off(int key, std::int64_t time);
  std::size_t part_of(int channel, std::int64_t end);
  Events& events_of(int channel);

  std::size_t steps_ = 0;  // since the last poll
  std::int32_t track_ = none;
  std::array<std::uint8_t, 16> programs_{};
  std::array<std::int32_t, 16> waiting_;         // of every channel, the events without a part; index into `events`
  std::array<std::int32_t, num_keys> parts_of_;  // of every channel and program
  std::array<std::int64_t, num_keys> youngest_;  // sounding note of every key
};

}  // namespace musicgen::midi
