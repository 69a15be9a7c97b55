#include "generate/history.h"

#include <algorithm>

#include "base/checked.h"

namespace musicgen::generate {

namespace {

int bucket(const Feature& f, std::int64_t value) {
  int id = 0;
  while (id < static_cast<int>(f.buckets.size()) && f.buckets[to_size(id)] <= value) ++id;
  return id;
}

}  // namespace

SequenceState start_of(const RecurrentModel& model) {
  const RecurrentSpec& spec = model.spec();
  const std::size_t slots = spec.slots.size(), ring = to_size(model.history());
  SequenceState state;
  state.h.assign(to_size(spec.num_layers) * to_size(model.units()), 0.0f);
  if (spec.cell == Cell::lstm) state.c = state.h;
  state.tokens.assign(ring * slots, 0);
  state.sounding.assign(ring * slots, 0);
  state.last_onset.assign(slots, -1);
  if (model.needs_match()) {
    state.hashes.assign(ring, 0);
    state.match.assign(ring, 0);
  }
  return state;
}

History::History(const RecurrentModel& model, SequenceState& state)
    : model_(&model), spec_(&model.spec()), state_(&state), mask_(model.history() - 1), slots_(spec_->slots.size()) {}

void History::look(const std::int32_t* given, int* ids) {
  const std::int64_t t = state_->frame;
  if (model_->needs_match()) find_match(t);
  for (std::size_t i = 0; i < spec_->features.size(); ++i) {
    const Feature& f = spec_->features[i];
    switch (f.kind) {
      case FeatureKind::token:
        ids[i] = t < f.lag ? start_id(f.slot) : state_->tokens[at(t - f.lag, f.slot)];
        break;
      case FeatureKind::sounding:
        ids[i] = t < f.lag ? start_id(f.slot) : state_->sounding[at(t - f.lag, f.slot)];
        break;
      case FeatureKind::held:
        ids[i] = bucket(f, state_->last_onset[to_size(f.slot)] < 0 ? 0 : (t - 1) - state_->last_onset[to_size(f.slot)]);
        break;
      case FeatureKind::clock:
        ids[i] = static_cast<int>((t / f.divide) % f.period);
        break;
      case FeatureKind::match:
        ids[i] = match_length_ == 0 ? start_id(f.slot) : state_->tokens[at(match_frame_, f.slot)];
        break;
      case FeatureKind::match_length:
        ids[i] = bucket(f, match_length_);
        break;
      case FeatureKind::interval:
        ids[i] = interval(f, t);
        break;
      case FeatureKind::given:
        ids[i] = given[f.given];
        break;
      case FeatureKind::chosen:
      case FeatureKind::chosen_sounding:
        ids[i] = start_id(f.slot);
        break;
      case FeatureKind::difference:
      case FeatureKind::degree:
      case FeatureKind::parallel:
        break;
    }
  }
  compare(ids);
}

void History::compare(int* ids) const {
  for (const std::size_t i : model_->combined()) {
    const Feature& f = spec_->features[i];
    const Feature &a = spec_->features[to_size(f.first)], &b = spec_->features[to_size(f.second)];
    if (f.kind == FeatureKind::difference) {
      ids[i] = difference(a.slot, ids[f.first], b.slot, ids[f.second], f.limit);
    } else if (f.kind == FeatureKind::degree) {
      ids[i] = degree(a.slot, ids[f.first], ids[f.second], f.offset);
    } else {
      const Feature& c = spec_->features[to_size(f.third)];
      const int moved = ids[f.first] + ids[f.second] - ids[f.third];
      const bool pitches =
          is_pitch(a.slot, ids[f.first]) && is_pitch(b.slot, ids[f.second]) && is_pitch(c.slot, ids[f.third]);
      ids[i] = pitches && is_pitch(a.slot, moved) ? moved : start_id(a.slot);
    }
  }
}

int History::sounding_with(int slot, int token) const {
  if (token != spec_->slots[to_size(slot)].hold) return token;
  return state_->frame == 0 ? start_id(slot) : state_->sounding[at(state_->frame - 1, slot)];
}

void History::advance(const std::int32_t* frame) {
  const std::int64_t t = state_->frame;
  std::uint64_t hash = 14695981039346656037ull;
  for (std::size_t s = 0; s < slots_; ++s) {
    const int slot = static_cast<int>(s), hold = spec_->slots[s].hold;
    const bool onset = hold >= 0 ? frame[s] != hold : t == 0 || frame[s] != state_->tokens[at(t - 1, slot)];
    const int sounds = sounding_with(slot, frame[s]);
    state_->tokens[at(t, slot)] = frame[s];
    state_->sounding[at(t, slot)] = sounds;
    if (onset) state_->last_onset[s] = t;
    hash = (hash ^ static_cast<std::uint64_t>(frame[s])) * 1099511628211ull;
  }
  if (model_->needs_match()) state_->hashes[to_size(t & mask_)] = hash;
  state_->frame = t + 1;
}

int History::interval(const Feature& f, std::int64_t t) const {
  if (t == 0) return 0;
  return difference(f.slot, state_->sounding[at(t - 1, f.slot)], f.other_slot,
                    state_->sounding[at(t - 1, f.other_slot)], f.limit);
}

int History::difference(int slot_a, int a, int slot_b, int b, int limit) const {
  return is_pitch(slot_a, a) && is_pitch(slot_b, b) ? 1 + limit + std::clamp(a - b, -limit, limit) : 0;
}

int History::degree(int slot, int id, int tonic, int offset) const {
  if (!is_pitch(slot, id) || tonic >= kPitchClasses) return 0;
  const int above = id - std::max(spec_->slots[to_size(slot)].first_pitch, 0) + offset - tonic + kPitchClasses;
  return 1 + above % kPitchClasses;
}

bool History::is_pitch(int slot, int id) const {
  const Slot& s = spec_->slots[to_size(slot)];
  return id >= std::max(s.first_pitch, 0) && id < s.size;
}

bool History::equal(std::int64_t a, std::int64_t b) const {
  if (state_->hashes[to_size(a & mask_)] != state_->hashes[to_size(b & mask_)]) return false;
  return std::equal(&state_->tokens[at(a, 0)], &state_->tokens[at(a, 0)] + slots_, &state_->tokens[at(b, 0)]);
}

// match[j]: length of the longest common suffix of frames[.. t-1] and frames[.. j-1]; the longest wins, then the
// latest. One pass from the previous frame's lengths: walking down, match[j - 1] is still the old one.
void History::find_match(std::int64_t t) {
  match_length_ = 0;
  match_frame_ = 0;
  const std::int64_t first = std::max<std::int64_t>(1, t - spec_->match_window);
  for (std::int64_t j = t - 1; j >= first; --j) {
    int length = 0;
    if (equal(t - 1, j - 1)) length = 1 + (j > 1 ? state_->match[to_size((j - 1) & mask_)] : 0);
    state_->match[to_size(j & mask_)] = length;
    if (length > match_length_) {
      match_length_ = length;
      match_frame_ = j;
    }
  }
}

}  // namespace musicgen::generate
